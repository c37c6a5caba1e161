//! Protobuf's wire format, written straight into a buffer; all fields have numbers below 16 and so
//! keys of one byte (protobuf.dev, Encoding). prost's own messages would copy each line.

use prost::encoding::{encode_varint, encoded_len_varint};

/// Key of a length-delimited field.
pub(super) const fn field(number: u8) -> u8 {
    number << 3 | 2
}

/// Structured metadata of an entry, with the key of its field.
pub(super) fn metadata(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(field(3));
    encode_varint(pair_len(name, value) as u64, out);
    text(out, 1, name.as_bytes());
    text(out, 2, value.as_bytes());
}

/// Bytes of a pair of texts.
pub(super) fn pair_len(name: &str, value: &str) -> usize {
    in_field(name.len()) + in_field(value.len())
}

/// Appends a length-delimited field.
pub(super) fn text(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.push(field(number));
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Bytes of a length-delimited field with its key and length.
pub(super) fn in_field(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}
