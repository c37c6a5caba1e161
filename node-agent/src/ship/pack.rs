//! The snappy block that Loki wants a protobuf body in.
//!
//! Format: length as varint, then elements; an element of tag 0xfc is a literal with its length
//! minus one in four bytes (google/snappy, format_description.txt).

use super::proto::varint;

/// From this size on a body is put into its block as it is. Such bodies come only where a file
/// grows by megabytes a second; then compressing would take half of the shipper's time from the
/// service's CPUs to spare a cluster's network some per cent of what it can do.
const STORED_FROM: usize = 256 * 1024;

/// Packs `body` into `out`, which is emptied before.
///
/// # Errors
/// It is longer than a block can be: 4 GiB.
pub(super) fn pack(
    body: &[u8],
    packer: &mut snap::raw::Encoder,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    out.clear();
    if body.len() < STORED_FROM {
        out.resize(snap::raw::max_compress_len(body.len()), 0);
        let length = packer.compress(body, out).map_err(std::io::Error::other)?;
        out.truncate(length);
        return Ok(());
    }
    let rest = u32::try_from(body.len() - 1).map_err(std::io::Error::other)?;
    varint(out, body.len() as u64);
    out.push(0xfc);
    out.extend_from_slice(&rest.to_le_bytes());
    out.extend_from_slice(body);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_block_unpack() {
        let mut packer = snap::raw::Encoder::new();
        let mut out = Vec::new();
        for length in [0, 1, 1000, STORED_FROM - 1, STORED_FROM, 2 * STORED_FROM] {
            let body: Vec<u8> = b"some text ".iter().copied().cycle().take(length).collect();
            pack(&body, &mut packer, &mut out).unwrap();
            let unpacked = snap::raw::Decoder::new().decompress_vec(&out).unwrap();
            assert_eq!(unpacked, body, "{length}");
        }
    }
}
