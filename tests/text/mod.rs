//! Texts: segment counting against counters that this project did not write.

mod oracle;
