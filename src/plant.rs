//! Known bugs, one of which can be switched on: the chaos harness must find each of them.
//!
//! Without the feature `plant` there is nothing here but a macro that says no, and the compiler
//! takes away what stands behind it. With it, `RUMORMILL_PLANT` names the bug.

#[cfg(all(feature = "plant", not(debug_assertions)))]
compile_error!("the feature `plant` switches on known bugs: no release build may have it");

/// Whether a bug is switched on.
#[cfg(not(feature = "plant"))]
macro_rules! planted {
    ($name:ident) => {
        false
    };
}

/// Whether a bug is switched on.
#[cfg(feature = "plant")]
macro_rules! planted {
    ($name:ident) => {
        crate::plant::is(crate::plant::Plant::$name)
    };
}

#[cfg(feature = "plant")]
macro_rules! plants {
    ($($variant:ident $name:literal $says:literal)*) => {
        /// A known bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Plant {
            $(#[doc = $says] $variant,)*
        }

        /// All of them.
        pub const ALL: &[Plant] = &[$(Plant::$variant,)*];

        impl Plant {
            /// What it is called.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it does.
            pub fn says(self) -> &'static str {
                match self { $(Self::$variant => $says,)* }
            }
        }
    };
}

#[cfg(feature = "plant")]
plants! {
    AckBeforeHandle "ack-before-handle" "an event is acknowledged before its handler runs"
    AcksForgotten "acks-forgotten" "an acknowledgement is not sent, and taken for done"
    ChecksumIgnored "checksum-ignored" "the checksum of an envelope is not looked at"
    DrainDrops "drain-drops" "what waits when a drain begins is acknowledged"
    ForgetRetry "forget-retry" "a retry ends the delivery, and is not written"
    LaneByChance "lane-by-chance" "an event goes to any lane, whatever its key"
    LogCutShort "log-cut-short" "each append trims the log to a hundred entries"
    LostIsNotStored "lost-is-not-stored" "an answer that was lost is told as not stored"
    LostIsStored "lost-is-stored" "an answer that was lost is told as stored"
    Miscount "miscount" "incidents are told and not counted"
    NamespaceIgnored "namespace-ignored" "every bus has the keys of the default namespace"
    NoCrashNotes "no-crash-notes" "a suspect is always found running for the first time"
    NoDeadLetter "no-dead-letter" "a dead letter ends the delivery, and is not written"
    NoPanicGuard "no-panic-guard" "a panic takes its lane along"
    NoRenewal "no-renewal" "leases are not renewed"
    NoSweep "no-sweep" "nobody looks for what was abandoned"
    Nothing "nothing" "no bug at all: what a run of this one finds is not the plants' doing"
    RegroupAtEnd "regroup-at-end" "a group that vanished is made again at the end of the log"
    RepeatUnseen "repeat-unseen" "an append in doubt is repeated without a look at the log"
    ScheduleCopies "schedule-copies" "what is due is copied, not moved"
    SilentLosses "silent-losses" "what the server lost is not told"
    Unfenced "unfenced" "a settlement is done, whether the entry is held or not"
    ZeroIdle "zero-idle" "entries are claimed however short they were idle"
}

/// Whether this is the bug that `RUMORMILL_PLANT` names.
#[cfg(feature = "plant")]
pub fn is(plant: Plant) -> bool {
    static PLANTED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("RUMORMILL_PLANT").ok());
    PLANTED.as_deref() == Some(plant.name())
}

/// A script's text, with the bug that is switched on where it is one of a script.
#[cfg(feature = "plant")]
pub(crate) fn script(text: &str) -> String {
    let (right, wrong) = if is(Plant::Unfenced) {
        ("entry.fate = not entry.taken and ALREADY or nil", "counts[entry.id] = entry.count")
    } else if is(Plant::ForgetRetry) {
        ("redis.call('ZADD', KEYS[3], now + item.delay, item.record)", "local _ = item")
    } else if is(Plant::NoDeadLetter) {
        ("redis.call(unpack(letter))", "local _ = letter")
    } else if is(Plant::ScheduleCopies) {
        ("redis.call('ZREM', KEYS[1], member)", "local _ = member")
    } else if is(Plant::RegroupAtEnd) {
        ("local create = {", "begin = log.last local create = {")
    } else {
        return text.to_owned();
    };
    text.replace(right, wrong)
}
