//! One process of the drill's fleet, and what is done to it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::guard::VARIABLE;
use crate::model::code::{Code, Fault};

/// How often an end is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// A process that is told to stand still does so within this time, or did not do it.
const STANDS_WITHIN: Duration = Duration::from_secs(10);

/// A process. It is killed when it is let go of.
pub struct Worker {
    /// Its role, as the command is called.
    pub role: &'static str,
    child: Child,
    /// Where it writes its log.
    pub log: PathBuf,
}

impl Worker {
    /// Starts this program again with a role, untouched by the terminal. `keys` are keys of the configuration, `simulator` is where
    /// its accounts must lead to.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(
        role: &'static str,
        config: Option<&Path>,
        keys: &[(String, String)],
        simulator: SocketAddr,
        log: PathBuf,
    ) -> Result<Worker, Fault> {
        let failed = |error: std::io::Error| Fault::new(Code::Internal, format!("a {role} cannot be started: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        command.arg(role);
        for (key, value) in keys {
            command.env(variable(key), value);
        }
        command.env(VARIABLE, simulator.to_string());
        let file = File::create(&log).map_err(failed)?;
        let out = file.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(out).stderr(file);
        Ok(Worker { role, child: command.spawn().map_err(failed)?, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// What the system says.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Fault> {
        self.child.try_wait().map_err(|error| Fault::new(Code::Internal, format!("a process cannot be looked at: {error}")))
    }

    /// SIGKILL. Whether it was that which ended it.
    ///
    /// # Errors
    /// What the system says.
    pub fn kill(&mut self) -> Result<bool, Fault> {
        use std::os::unix::process::ExitStatusExt;
        let failed = |error: std::io::Error| Fault::new(Code::Internal, format!("a process cannot be killed: {error}"));
        self.child.kill().map_err(failed)?;
        let status = self.child.wait().map_err(failed)?;
        Ok(status.signal() == Some(Signal::KILL.as_raw()))
    }

    /// SIGTERM, and waits; whether it ended in order within `grace`. One that did not is killed.
    ///
    /// # Errors
    /// What the system says.
    pub async fn stop(&mut self, grace: Duration) -> Result<bool, Fault> {
        self.signal(Signal::TERM)?;
        let until = Instant::now() + grace;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status.success());
            }
            if Instant::now() >= until {
                self.kill()?;
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGSTOP. Whether it stands still: a thread that waits for the disk, or for its turn on a busy machine, stops only after that.
    ///
    /// # Errors
    /// What the system says.
    pub async fn freeze(&mut self) -> Result<bool, Fault> {
        self.signal(Signal::STOP)?;
        let until = Instant::now() + STANDS_WITHIN;
        while !self.stands_still() {
            if self.ended()?.is_some() || Instant::now() >= until {
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(true)
    }

    /// Whether each of its threads is stopped.
    fn stands_still(&self) -> bool {
        // The third word of a thread's line is its state; the second is its name in brackets. One that ended has no line.
        let is_stopped = |line: String| line.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
        std::fs::read_dir(format!("/proc/{}/task", self.id())).is_ok_and(|threads| {
            threads.flatten().all(|thread| std::fs::read_to_string(thread.path().join("stat")).map_or(true, is_stopped))
        })
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// What the system says.
    pub fn wake(&mut self) -> Result<(), Fault> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Fault> {
        // A child that was not waited for keeps its number: nobody else can be meant.
        if self.ended()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(|error| Fault::new(Code::Internal, format!("a process cannot be told anything: {error}")))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The variable that names a key of the configuration.
fn variable(key: &str) -> String {
    format!("{}{}", crate::roles::config_load::ENVIRONMENT, key.replace('.', "__").to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_the_configuration_reads_them() {
        assert_eq!(variable("accounts.simulator.smpp.port"), "SMSFLEET_ACCOUNTS__SIMULATOR__SMPP__PORT");
    }

    #[tokio::test]
    async fn a_process_stands_still_from_its_freeze_on_and_one_that_ended_does_not() {
        let child = Command::new("sleep").arg("600").spawn().expect("every system has it");
        let mut worker = Worker { role: "all", child, log: PathBuf::new() };
        assert!(!worker.stands_still());
        assert_eq!(worker.freeze().await, Ok(true));
        assert!(worker.stands_still());
        worker.wake().expect("it lives");
        while worker.stands_still() {
            tokio::time::sleep(LOOK).await;
        }
        assert_eq!(worker.kill(), Ok(true));
        assert_eq!(worker.freeze().await, Ok(false), "there is nobody to freeze");
    }
}
