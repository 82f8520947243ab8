//! What `bus-cli bench` asks of a server, and how it leaves nothing behind on it.

use std::time::Duration;

use redis::Pipeline;

use super::fault::accept;
use super::{RedisDriver, facts, reply};
use crate::delivery::Partition;
use crate::driver::GroupName;
use crate::error::Error;

/// No part of the interface.
#[doc(hidden)]
impl RedisDriver {
    /// Asks for nothing, and waits for the answer.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub async fn ping(&self) -> Result<(), Error> {
        self.shared.commands.ask_one("ping the server", redis::cmd("PING")).await.map(drop)
    }

    /// How long the thread that runs commands has been at work since the server started; nothing
    /// where it does not say.
    ///
    /// # Errors
    /// Where the server does not answer, or does not let.
    pub async fn processor_time(&self) -> Result<Option<Duration>, Error> {
        let mut info = redis::cmd("INFO");
        info.arg("cpu");
        let commands = &self.shared.commands;
        let what = "ask the server for its processor time";
        let answer = commands.ask_one(what, info).await?;
        let text = reply::text(answer).map_err(|fault| commands.error(what, &fault))?;
        Ok(processor_time(&text))
    }

    /// Removes what this namespace has of a topic's partitions and of groups, and the lists of
    /// topics and consumers: all of a namespace that nobody else uses. With `after` it goes by
    /// itself that much later. Tells how many keys there were.
    ///
    /// # Errors
    /// Where the server does not answer, or does not let.
    pub async fn erase(
        &self,
        partitions: &[Partition],
        groups: &[GroupName],
        after: Duration,
    ) -> Result<u64, Error> {
        let what = "remove the keys of a measurement";
        let keys = self.shared.keys.whole(partitions, groups);
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for key in &keys {
            if after.is_zero() {
                pipeline.cmd("UNLINK").arg(key);
            } else {
                let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                pipeline.cmd("PEXPIRE").arg(key).arg(millis);
            }
        }
        let commands = &self.shared.commands;
        let mut count = 0;
        for (key, answer) in keys.iter().zip(commands.ask(what, &pipeline).await?) {
            let answer = accept(answer).and_then(reply::int);
            let found = answer.map_err(|fault| {
                commands.error(format!("remove key {key} of a measurement"), &fault)
            })?;
            count += u64::from(found == Some(1));
        }
        Ok(count)
    }
}

/// In the answer of `INFO cpu`.
fn processor_time(info: &str) -> Option<Duration> {
    let seconds = |name: &str| facts::line(info, name)?.parse::<f64>().ok();
    let thread = seconds("used_cpu_user_main_thread").zip(seconds("used_cpu_sys_main_thread"));
    let (user, system) =
        thread.or_else(|| seconds("used_cpu_user").zip(seconds("used_cpu_sys")))?;
    Duration::try_from_secs_f64(user + system).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_that_runs_commands_counts() {
        let whole = "# CPU\r\nused_cpu_sys:3.0\r\nused_cpu_user:4.0\r\n";
        assert_eq!(processor_time(whole), Some(Duration::from_secs(7)));
        let thread = "used_cpu_sys_main_thread:1.5\r\nused_cpu_user_main_thread:0.5\r\n";
        let both = format!("{whole}{thread}");
        assert_eq!(processor_time(&both), Some(Duration::from_secs(2)));
        assert_eq!(processor_time("# CPU\r\n"), None);
    }
}
