//! What only a store on servers can do wrong: answers that get lost, servers that refuse, tables of another version, and
//! orders in which clocks do not agree.

mod connect;
mod dressed;
mod schema;

mod faults;
pub mod proxy;

mod rows;

mod counted;
mod erased;
mod shared;
