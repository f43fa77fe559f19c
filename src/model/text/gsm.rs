//! The GSM 03.38 default alphabet with its extension table.
