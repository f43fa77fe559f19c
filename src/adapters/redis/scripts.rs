//! The scripts by name. What each takes and answers stands in its file.

use std::sync::LazyLock;

use deadpool_redis::redis::Script;

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        $($(#[$doc])* pub static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file, ".lua"))));)*

        /// All scripts: name and text.
        pub const SCRIPTS: &[(&str, &str)] = &[$(($file, include_str!(concat!("lua/", $file, ".lua")))),*];
    };
}

scripts! {
    /// Takes or renews a lock.
    LEASE_ACQUIRE = "lease_acquire";
    /// Gives a lock up.
    LEASE_RELEASE = "lease_release";
    /// Reads an account's rate.
    RATE_LOAD = "rate_load";
    /// Stores an account's rate if it is still what was read.
    RATE_STORE = "rate_store";
    /// Adds to live counts.
    TALLY_ADD = "tally_add";
    /// Sets live counts.
    TALLY_SET = "tally_set";
    /// Reads live counts.
    TALLY_READ = "tally_read";
    /// Forgets live counts.
    TALLY_CLEAR = "tally_clear";
    /// A writer's report.
    BUDGET_REPORT = "budget_report";
    /// The leader's look at what writers met.
    BUDGET_GATHER = "budget_gather";
    /// The leader's word on what they may write.
    BUDGET_PUBLISH = "budget_publish";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_says_what_it_takes_and_answers() {
        for (name, text) in SCRIPTS {
            let keys = (1..9).take_while(|n| text.contains(&format!("KEYS[{n}]"))).count();
            for key in 1..=keys {
                assert!(text.contains(&format!("-- KEYS[{key}]")), "{name} does not say what KEYS[{key}] is");
            }
            assert!(text.starts_with("-- ") && text.contains("-- Answer:"), "{name} does not explain itself");
        }
    }
}
