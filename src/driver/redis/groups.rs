//! Making a group on its streams.

use redis::{Pipeline, Value};

use super::fault::{Fault, accept};
use super::member::Member;
use super::reply;
use crate::delivery::{EntryId, Partition, Start};
use crate::error::Error;

/// The id after which a group begins, as XGROUP CREATE wants it.
fn position(start: Start) -> String {
    match start {
        Start::Earliest => EntryId::ZERO.to_string(),
        Start::New => "$".to_owned(),
        Start::After(id) => id.to_string(),
        Start::At(time) => EntryId { millis: time.as_millis(), seq: 0 }.previous().to_string(),
    }
}

/// Makes the group on partitions where it is not: on the log at its start, on the retry stream
/// from the first entry. Says aloud what it begins with.
pub(super) async fn create(member: &Member, starts: &[(Partition, Start)]) -> Result<(), Error> {
    for part in starts.chunks(50) {
        let mut pipeline = Pipeline::new();
        for (partition, start) in part {
            let keys = member.keys(partition);
            create_one(&mut pipeline, &keys.log, member.group.as_str(), &position(*start));
            create_one(&mut pipeline, &keys.retry, member.group.as_str(), "0");
            pipeline.cmd("XLEN").arg(&keys.log);
        }
        let what = format!("make group {}", member.group);
        let answers = member.shared.commands.ask(&what, &pipeline).await?;
        for ((partition, start), answer) in part.iter().zip(answers.chunks(3)) {
            let keys = member.keys(partition);
            let refuse = |fault: Fault, key: &str| {
                member.shared.commands.error(format!("{what} on key {key}"), &fault)
            };
            let made = is_made(answer[0].clone()).map_err(|fault| refuse(fault, &keys.log))?;
            is_made(answer[1].clone()).map_err(|fault| refuse(fault, &keys.retry))?;
            if made {
                let kept = reply::count(answer[2].clone()).unwrap_or(0);
                announce(member, partition, *start, kept);
            }
        }
    }
    Ok(())
}

pub(super) fn create_one(pipeline: &mut Pipeline, key: &str, group: &str, id: &str) {
    pipeline.cmd("XGROUP").arg("CREATE").arg(key).arg(group).arg(id).arg("MKSTREAM");
}

/// Whether the group was made now; false where it was there.
pub(super) fn is_made(value: Value) -> Result<bool, Fault> {
    match accept(value) {
        Ok(_) => Ok(true),
        Err(fault) if fault.code() == "BUSYGROUP" => Ok(false),
        Err(fault) => Err(fault),
    }
}

fn announce(member: &Member, partition: &Partition, start: Start, kept: u64) {
    let group = &member.group;
    match start {
        Start::Earliest => tracing::info!(
            %group, %partition, entries = kept, "a new group begins with the earliest event kept"
        ),
        start => tracing::info!(%group, %partition, ?start, "a new group begins"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn a_group_begins_right_before_its_first_entry() {
        assert_eq!(position(Start::Earliest), "0-0");
        assert_eq!(position(Start::New), "$");
        assert_eq!(position(Start::After(EntryId { millis: 5, seq: 2 })), "5-2");
        let at = |millis| position(Start::At(Timestamp::from_millis(millis)));
        assert_eq!(at(10), format!("9-{}", u64::MAX));
        assert_eq!(at(0), "0-0");
    }
}
