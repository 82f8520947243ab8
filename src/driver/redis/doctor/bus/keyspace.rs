//! What keys there are under our prefix: the one place that looks through the whole keyspace, and
//! so in a bounded number of steps.

use std::collections::BTreeSet;

use redis::Value;

use super::asking::Asking;
use super::evidence::{Key, Keyspace};
use crate::driver::redis::admin::Look;
use crate::driver::redis::fault::Fault;
use crate::driver::redis::reply;
use crate::error::Error;

/// Steps of SCAN, and what each looks at on the server. Ours is one of maybe many tenants.
const STEPS_MAX: usize = 200;
const STEP_KEYS: usize = 1000;
/// Keys of which type and remaining time are asked for.
pub(super) const KEYS_MAX: usize = 10_000;

/// Looks through the keys. What is left out is said in `cut`.
pub(super) async fn look(
    asking: &mut Asking<'_>,
    cut: &mut Vec<String>,
) -> Result<Keyspace, Error> {
    let names = names(asking, cut).await?;
    let mut looks = Vec::with_capacity(names.len() * 2);
    for name in &names {
        for command in ["TYPE", "PTTL"] {
            let mut command = redis::cmd(command);
            command.arg(name.as_slice());
            let key = String::from_utf8_lossy(name).into_owned();
            looks.push(Look::of(&key, command));
        }
    }
    let mut answers = asking.look(&looks).await?.into_iter();
    let mut keys = Vec::with_capacity(names.len());
    for name in names {
        let (kind, left) = (answers.next().unwrap_or_default(), answers.next().unwrap_or_default());
        let kind = asking.read("TYPE", reply::text(kind));
        let left = asking.read("PTTL", reply::int(left));
        // One that expired or was deleted meanwhile is none.
        if kind != "none" {
            let expires = left.and_then(|left| u64::try_from(left).ok());
            let name = String::from_utf8_lossy(&name).into_owned();
            keys.push(Key { name, kind, expires });
        }
    }
    Ok(Keyspace { keys })
}

async fn names(asking: &mut Asking<'_>, cut: &mut Vec<String>) -> Result<BTreeSet<Vec<u8>>, Error> {
    let prefix = asking.shared.keys.prefix();
    let (mut names, mut cursor) = (BTreeSet::new(), "0".to_owned());
    for _ in 0..STEPS_MAX {
        let look = Look::new(&["SCAN"], &cursor).arg("MATCH").arg(format!("{prefix}*"));
        let look = look.arg("COUNT").arg(STEP_KEYS);
        let answer = asking.look(&[look]).await?.pop().unwrap_or_default();
        let (next, found) = asking.read("SCAN", page(answer));
        names.extend(found);
        if names.len() > KEYS_MAX {
            cut.push(format!("keys under {prefix} beyond {KEYS_MAX}"));
            return Ok(names.into_iter().take(KEYS_MAX).collect());
        }
        if next == "0" || next.is_empty() {
            return Ok(names);
        }
        cursor = next;
    }
    let looked = STEPS_MAX * STEP_KEYS;
    cut.push(format!("keys under {prefix}: the server has more than {looked} keys"));
    Ok(names)
}

/// The next cursor, and what was found.
fn page(answer: Value) -> Result<(String, Vec<Vec<u8>>), Fault> {
    let mut parts = reply::items(answer)?.into_iter();
    let cursor = reply::text(parts.next().unwrap_or_default())?;
    let mut names = Vec::new();
    for name in reply::items(parts.next().unwrap_or_default())? {
        names.push(reply::bytes(name)?.unwrap_or_default().to_vec());
    }
    Ok((cursor, names))
}
