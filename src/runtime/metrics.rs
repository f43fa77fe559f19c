//! The metrics of the whole system: names, help and labels in one place.
//!
//! Names are `smsfleet_<stage>_<noun>_<unit or total>`; labels are closed sets or account names, never a batch, never a
//! number.
