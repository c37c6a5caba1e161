//! The snappy block that Loki wants a protobuf body in.
//!
//! Format: length as varint, then elements; an element of tag 0xfc is a literal with its length
//! minus one in four bytes (google/snappy, format_description.txt).

use prost::encoding::encode_varint;

/// From this size on a body is put into its block as it is. Such bodies come only where a file
/// grows by megabytes a second; then compressing would take half of the shipper's time from the
/// service's CPUs to spare a cluster's network some per cent of what it can do.
const STORED_FROM: usize = 256 * 1024;

/// Room in front of a body: the longest head of a block that stores it as it is.
pub(super) const HEAD: usize = 10;

/// The block of `body`, whose first [`HEAD`] bytes are room; it lies in `body` or in `packed`.
///
/// # Errors
/// It is longer than a block can be: 4 GiB.
pub(super) fn pack<'a>(
    body: &'a mut [u8],
    packer: &mut snap::raw::Encoder,
    packed: &'a mut Vec<u8>,
) -> std::io::Result<&'a [u8]> {
    let length = body.len().saturating_sub(HEAD);
    if length < STORED_FROM {
        packed.resize(snap::raw::max_compress_len(length), 0);
        let body = body.get(HEAD..).unwrap_or_default();
        let length = packer.compress(body, packed).map_err(std::io::Error::other)?;
        return Ok(packed.get(..length).unwrap_or_default());
    }
    let rest = u32::try_from(length - 1).map_err(std::io::Error::other)?;
    let mut head = Vec::with_capacity(HEAD);
    encode_varint(length as u64, &mut head);
    head.push(0xfc);
    head.extend_from_slice(&rest.to_le_bytes());
    let begin = HEAD - head.len();
    if let Some(place) = body.get_mut(begin..HEAD) {
        place.copy_from_slice(&head);
    }
    Ok(body.get(begin..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_block_unpack() {
        let mut packer = snap::raw::Encoder::new();
        let mut packed = Vec::new();
        for length in [0, 1, 1000, STORED_FROM - 1, STORED_FROM, 2 * STORED_FROM, 3 << 20] {
            let text: Vec<u8> = b"some text ".iter().copied().cycle().take(length).collect();
            let mut body = vec![0; HEAD];
            body.extend_from_slice(&text);
            let block = pack(&mut body, &mut packer, &mut packed).unwrap();
            let unpacked = snap::raw::Decoder::new().decompress_vec(block).unwrap();
            assert_eq!(unpacked, text, "{length}");
        }
    }
}
