//! Layout: the rules of the house, checked.
