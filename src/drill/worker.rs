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

    /// SIGSTOP. Whether it stands still now.
    ///
    /// # Errors
    /// What the system says.
    pub async fn freeze(&mut self) -> Result<bool, Fault> {
        self.signal(Signal::STOP)?;
        tokio::time::sleep(LOOK).await;
        // The third word of this line is the state; the second is the program's name in brackets.
        let line = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        Ok(line.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
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
}
