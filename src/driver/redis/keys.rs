//! The names of all keys: this file is the only one that knows them.
//!
//! Keys of one partition share a hash tag, so that a script may touch them together on a cluster.

use crate::delivery::Partition;
use crate::driver::GroupName;
use crate::error::Error;
use crate::event_id::EventId;

/// Most bytes of a namespace.
const NAMESPACE_BYTES_MAX: usize = 64;

/// Makes key names within a namespace.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    namespace: String,
}

/// The keys of one group on one partition.
#[derive(Clone, Debug)]
pub(super) struct GroupKeys {
    /// Stream: the partition's log, which all groups read.
    pub(super) log: String,
    /// Stream: what this group tries again.
    pub(super) retry: String,
    /// Sorted set by server milliseconds: what this group tries again later.
    pub(super) due: String,
    /// Stream: what this group gave up.
    pub(super) dead: String,
    /// Hash key's hash -> origins: what holds the later events of a parked key back.
    pub(super) parking: String,
    /// Sorted set of one score: the events of parked keys, by key and in order.
    pub(super) parked: String,
    /// Sorted set event id (16 bytes) -> server milliseconds: what was handled, and until when that
    /// is known.
    pub(super) handled: String,
    /// Hash entry id -> bitmap: which events of a half settled entry are settled.
    pub(super) progress: String,
    /// Hash: where the group goes on if it vanishes; see `checkpoint.lua`.
    pub(super) checkpoint: String,
    /// Hash entry id of the retry stream -> `FOUND:COUNT`: which suspects are running.
    pub(super) running: String,
}

/// What a key of ours is, as its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Of which partition it is, where it is of one.
    pub(super) partition: Option<Partition>,
    /// Of which group it is, where it is of one.
    pub(super) group: Option<String>,
    /// What it is called, apart from both.
    pub(super) name: &'static str,
    /// The type that it has.
    pub(super) kind: &'static str,
    /// It is there for a while only.
    pub(super) expires: bool,
}

/// The keys of a partition: what they are called, their type, and whether they expire.
const OF_PARTITION: [(&str, &str, bool); 5] = [
    ("log", "stream", false),
    ("delayed", "zset", false),
    ("dropped", "hash", false),
    ("trim", "string", true),
    ("confirm", "string", true),
];

/// The keys of a group on a partition: what they are called, their type, and whether they expire.
const OF_GROUP: [(&str, &str, bool); 9] = [
    ("retry", "stream", false),
    ("due", "zset", false),
    ("dead", "stream", false),
    ("parking", "hash", false),
    ("parked", "zset", false),
    ("handled", "zset", true),
    ("progress", "hash", false),
    ("checkpoint", "hash", false),
    ("running", "hash", false),
];

impl Keys {
    /// Checks a namespace: 1 to 64 of `A-Z a-z 0-9 _ - . :`.
    pub(super) fn new(namespace: &str) -> Result<Self, Error> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        let length = namespace.len();
        if length == 0 || length > NAMESPACE_BYTES_MAX || !namespace.bytes().all(valid) {
            let shown: String = namespace.chars().take(80).collect();
            return Err(Error::invalid(format!("namespace {shown:?} is not valid"))
                .with_help("use 1 to 64 of A-Z a-z 0-9 _ - . and :"));
        }
        let namespace = if planted!(NamespaceIgnored) { "rm" } else { namespace };
        Ok(Self { namespace: namespace.to_owned() })
    }

    fn of(&self, partition: &Partition, name: &str) -> String {
        format!("{}:{{{partition}}}:{name}", self.namespace)
    }

    /// Stream: a partition's events.
    pub(super) fn log(&self, partition: &Partition) -> String {
        self.of(partition, "log")
    }

    /// Sorted set by server milliseconds: events that are published later.
    pub(super) fn delayed(&self, partition: &Partition) -> String {
        self.of(partition, "delayed")
    }

    /// String that expires: who trims a partition now.
    pub(super) fn trim(&self, partition: &Partition) -> String {
        self.of(partition, "trim")
    }

    /// Hash group -> entries: what was dropped of a partition before the group had settled it.
    pub(super) fn dropped(&self, partition: &Partition) -> String {
        self.of(partition, "dropped")
    }

    /// String `ENTRY-ID/INDEX`: where an event lies that is not to be stored again for a while.
    pub(super) fn seen(&self, partition: &Partition, id: EventId) -> String {
        self.of(partition, &format!("seen:{id}"))
    }

    /// String: written to have something that replicas can confirm.
    pub(super) fn confirm(&self, partition: &Partition) -> String {
        self.of(partition, "confirm")
    }

    /// Stream: what a group tries again.
    pub(super) fn retry(&self, partition: &Partition, group: &GroupName) -> String {
        self.of(partition, &format!("retry:{group}"))
    }

    /// What belongs to a group on a partition.
    pub(super) fn group(&self, partition: &Partition, group: &GroupName) -> GroupKeys {
        GroupKeys {
            log: self.log(partition),
            retry: self.retry(partition, group),
            due: self.of(partition, &format!("due:{group}")),
            dead: self.of(partition, &format!("dead:{group}")),
            parking: self.of(partition, &format!("parking:{group}")),
            parked: self.of(partition, &format!("parked:{group}")),
            handled: self.of(partition, &format!("handled:{group}")),
            progress: self.of(partition, &format!("progress:{group}")),
            checkpoint: self.of(partition, &format!("checkpoint:{group}")),
            running: self.of(partition, &format!("running:{group}")),
        }
    }

    /// Every key that partitions and groups may have, and those of the namespace itself. Marks of
    /// deduplicated events are left out: their names are not known, and they expire.
    pub(super) fn whole(&self, partitions: &[Partition], groups: &[GroupName]) -> Vec<String> {
        let mut keys = vec![self.topics(), self.consumers()];
        keys.extend(groups.iter().map(|group| self.routes(group)));
        for partition in partitions {
            keys.extend(OF_PARTITION.map(|(name, ..)| self.of(partition, name)));
            for group in groups {
                keys.extend(
                    OF_GROUP.map(|(name, ..)| self.of(partition, &format!("{name}:{group}"))),
                );
            }
        }
        keys
    }

    /// What the names of all keys match.
    pub(super) fn pattern(&self) -> String {
        format!("{}:*", self.namespace)
    }

    /// What every key begins with.
    pub(super) fn prefix(&self) -> String {
        format!("{}:", self.namespace)
    }

    /// Takes the name of a key apart; nothing where it is none of ours.
    pub(super) fn parse(&self, key: &str) -> Option<Named> {
        let rest = key.strip_prefix(&self.prefix())?;
        let of_all = |group: Option<&str>, name, kind| {
            let group = group.map(str::to_owned);
            Some(Named { partition: None, group, name, kind, expires: false })
        };
        match rest {
            "topics" => return of_all(None, "topics", "hash"),
            "consumers" => return of_all(None, "consumers", "zset"),
            _ => {}
        }
        if let Some(group) = rest.strip_prefix("routes:") {
            GroupName::new(group.to_owned()).ok()?;
            return of_all(Some(group), "routes", "hash");
        }
        let (partition, rest) = rest.strip_prefix('{')?.split_once("}:")?;
        let partition = Some(partition.parse().ok()?);
        if let Some((name, kind, expires)) = OF_PARTITION.into_iter().find(|own| own.0 == rest) {
            return Some(Named { partition, group: None, name, kind, expires });
        }
        let (name, owner) = rest.split_once(':')?;
        if name == "seen" {
            owner.parse::<EventId>().ok()?;
            let (name, kind) = ("seen", "string");
            return Some(Named { partition, group: None, name, kind, expires: true });
        }
        let (name, kind, expires) = OF_GROUP.into_iter().find(|own| own.0 == name)?;
        let group = Some(GroupName::new(owner.to_owned()).ok()?.as_str().to_owned());
        Some(Named { partition, group, name, kind, expires })
    }

    /// Hash topic -> JSON: what topics there are, and their shapes.
    pub(super) fn topics(&self) -> String {
        format!("{}:topics", self.namespace)
    }

    /// Hash pattern -> JSON, and the epoch: what a group can route.
    pub(super) fn routes(&self, group: &GroupName) -> String {
        format!("{}:routes:{group}", self.namespace)
    }

    /// Sorted set by server milliseconds: when each consumer was last heard of.
    pub(super) fn consumers(&self) -> String {
        format!("{}:consumers", self.namespace)
    }
}

/// The pattern of an ACL rule that holds a key and its like: those of other partitions, groups and
/// events, of the same namespace.
pub(super) fn pattern_of(key: &str) -> String {
    let (namespace, name) = match key.split_once(":{") {
        Some((namespace, rest)) => {
            let name = rest.split_once("}:").map_or("*", |(_, name)| name);
            (format!("{namespace}:{{*}}"), name)
        }
        None => match key.rsplit(':').nth(1) {
            // A group's name has no colon.
            Some("routes") => {
                let (kind, _) = key.rsplit_once(':').unwrap_or((key, ""));
                return format!("{kind}:*");
            }
            _ => return key.to_owned(),
        },
    };
    match name.split_once(':') {
        Some((kind, _)) => format!("{namespace}:{kind}:*"),
        None => format!("{namespace}:{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let keys = Keys::new("rm").expect("valid");
        let partition: Partition = "user_service:0".parse().expect("valid");
        let group = GroupName::new("email").expect("valid");
        let names = keys.group(&partition, &group);
        assert_eq!(names.log, "rm:{user_service:0}:log");
        assert_eq!(names.retry, "rm:{user_service:0}:retry:email");
        assert_eq!(names.due, "rm:{user_service:0}:due:email");
        assert_eq!(names.dead, "rm:{user_service:0}:dead:email");
        assert_eq!(names.parking, "rm:{user_service:0}:parking:email");
        assert_eq!(names.parked, "rm:{user_service:0}:parked:email");
        assert_eq!(names.handled, "rm:{user_service:0}:handled:email");
        assert_eq!(names.progress, "rm:{user_service:0}:progress:email");
        assert_eq!(names.checkpoint, "rm:{user_service:0}:checkpoint:email");
        assert_eq!(names.running, "rm:{user_service:0}:running:email");
        assert_eq!(keys.delayed(&partition), "rm:{user_service:0}:delayed");
        assert_eq!(keys.trim(&partition), "rm:{user_service:0}:trim");
        assert_eq!(keys.dropped(&partition), "rm:{user_service:0}:dropped");
        let id: EventId = "0190163d-8694-739b-aea5-966c26f8ad91".parse().expect("valid");
        let seen = "rm:{user_service:0}:seen:0190163d-8694-739b-aea5-966c26f8ad91";
        assert_eq!(keys.seen(&partition, id), seen);
        assert_eq!(keys.confirm(&partition), "rm:{user_service:0}:confirm");
        assert_eq!(keys.topics(), "rm:topics");
        assert_eq!(keys.routes(&group), "rm:routes:email");
        assert_eq!(keys.consumers(), "rm:consumers");
    }

    #[test]
    fn every_name_is_known_again() {
        let keys = Keys::new("rm").expect("valid");
        let partition: Partition = "user_service:0".parse().expect("valid");
        let group = GroupName::new("email").expect("valid");
        let id: EventId = "0190163d-8694-739b-aea5-966c26f8ad91".parse().expect("valid");
        let names = format!("{:?}", keys.group(&partition, &group));
        let of_group = names.split('"').skip(1).step_by(2).map(str::to_owned);
        let all = [keys.delayed(&partition), keys.trim(&partition), keys.dropped(&partition)];
        let more = [keys.seen(&partition, id), keys.confirm(&partition), keys.topics()];
        let rest = [keys.routes(&group), keys.consumers()];
        for key in of_group.chain(all).chain(more).chain(rest) {
            let named = keys.parse(&key).unwrap_or_else(|| panic!("{key} is not known"));
            assert!(key.contains(named.name), "{key}: {named:?}");
            assert_eq!(named.partition.is_some(), key.contains('{'), "{key}");
            assert_eq!(named.group.is_some(), key.ends_with(":email"), "{key}");
        }
        let others = ["rm", "rm:x", "other:topics", "rm:{t}:log", "rm:{t:0}:x", "rm:{t:0}:due:a b"];
        for key in others {
            assert_eq!(keys.parse(key), None, "{key}");
        }
    }

    #[test]
    fn a_whole_namespace_is_every_name_there_is() {
        let keys = Keys::new("rm").expect("valid");
        let partition: Partition = "user_service:0".parse().expect("valid");
        let group = GroupName::new("email").expect("valid");
        let whole = keys.whole(&[partition], &[group]);
        let named: Vec<_> = whole.iter().map(|key| keys.parse(key).expect(key).name).collect();
        let all = OF_PARTITION.iter().chain(&OF_GROUP).map(|(name, ..)| *name);
        for name in all.chain(["topics", "consumers", "routes"]) {
            assert_eq!(named.iter().filter(|known| **known == name).count(), 1, "{name}");
        }
        assert_eq!(named.len(), OF_PARTITION.len() + OF_GROUP.len() + 3);
    }

    #[test]
    fn a_pattern_holds_the_keys_of_one_kind() {
        let cases = [
            ("rm:{user_service:0}:log", "rm:{*}:log"),
            ("a:b:{user_service:0}:dead:email", "a:b:{*}:dead:*"),
            ("rm:topics", "rm:topics"),
            ("rm:routes:email", "rm:routes:*"),
        ];
        for (key, pattern) in cases {
            assert_eq!(pattern_of(key), pattern);
        }
    }

    #[test]
    fn a_namespace_cannot_break_the_hash_tag() {
        for bad in ["", "a{b", "a b", "ä", &"n".repeat(65)] {
            assert!(Keys::new(bad).is_err(), "{bad}");
        }
    }
}
