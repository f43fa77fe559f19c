//! Rows as the version behind this one would write them: with a field more in every struct.
//!
//! Only the test of a rolling upgrade and its way back uses it, in a second build with the feature `next-formats`
//! (`tests/campaign --upgrade`), and the tests of what this version reads. A map and the one key of an enum's case are no structs:
//! whoever reads them takes every key for a name, so they stay as they are.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

/// The name of the field.
pub const ADDED: &str = "added_by_the_next_version";

/// A value that is written with a field more in each of its structs.
pub struct Next<'a, T: ?Sized>(pub &'a T);

impl<T: Serialize + ?Sized> Serialize for Next<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Adding(serializer))
    }
}

struct Adding<S>(S);

/// Values that have nothing in them.
macro_rules! plain {
    ($($name:ident: $kind:ty)*) => {
        $(fn $name(self, value: $kind) -> Result<S::Ok, S::Error> {
            self.0.$name(value)
        })*
    };
}

impl<S: Serializer> Serializer for Adding<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Adding<S::SerializeSeq>;
    type SerializeTuple = Adding<S::SerializeTuple>;
    type SerializeTupleStruct = Adding<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Adding<S::SerializeTupleVariant>;
    type SerializeMap = Adding<S::SerializeMap>;
    type SerializeStruct = Adding<S::SerializeStruct>;
    type SerializeStructVariant = Adding<S::SerializeStructVariant>;

    plain! {
        serialize_bool: bool serialize_i8: i8 serialize_i16: i16 serialize_i32: i32 serialize_i64: i64 serialize_i128: i128
        serialize_u8: u8 serialize_u16: u16 serialize_u32: u32 serialize_u64: u64 serialize_u128: u128
        serialize_f32: f32 serialize_f64: f64 serialize_char: char serialize_str: &str serialize_bytes: &[u8]
        serialize_unit_struct: &'static str
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_none()
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Next(value))
    }

    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Next(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, index, variant, &Next(value))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.0.serialize_seq(length).map(Adding)
    }

    fn serialize_tuple(self, length: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.0.serialize_tuple(length).map(Adding)
    }

    fn serialize_tuple_struct(self, name: &'static str, length: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.0.serialize_tuple_struct(name, length).map(Adding)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0.serialize_tuple_variant(name, index, variant, length).map(Adding)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.0.serialize_map(length).map(Adding)
    }

    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.0.serialize_struct(name, length + 1).map(Adding)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0.serialize_struct_variant(name, index, variant, length + 1).map(Adding)
    }
}

/// Lists and tuples: what is in them is written anew, and nothing is added.
macro_rules! list {
    ($($part:ident $element:ident)*) => {
        $(impl<C: $part> $part for Adding<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.0.$element(&Next(value))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.0.end()
            }
        })*
    };
}

list! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

impl<C: SerializeMap> SerializeMap for Adding<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.0.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.0.serialize_value(&Next(value))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}

/// Structs: one field more at the end.
macro_rules! fields {
    ($($part:ident)*) => {
        $(impl<C: $part> $part for Adding<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), C::Error> {
                self.0.serialize_field(key, &Next(value))
            }

            fn end(mut self) -> Result<C::Ok, C::Error> {
                self.0.serialize_field(ADDED, &[1, 2])?;
                self.0.end()
            }
        })*
    };
}

fields! { SerializeStruct SerializeStructVariant }

#[cfg(test)]
#[path = "next_tests.rs"]
mod tests;
