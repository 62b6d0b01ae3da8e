//! A record that cannot be read, as it is parked.

use bytes::Bytes;
use ringback_core::event::DATA_BYTES_MAX;
use ringback_core::log::Record;
use ringback_core::record::header;

/// Bytes of headers that are kept.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// A record as it was read, with what is wrong with it.
///
/// What is larger than anything of ours is left out and said so: with the reason beside it the log
/// might never take it, and its partition would stand still. It is still where it was read.
pub(crate) struct RawRecord {
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) value: Option<Bytes>,
    pub(crate) detail: String,
}

impl RawRecord {
    /// A copy of a record, parked with this detail.
    pub(crate) fn of(record: &Record<'_>, mut detail: String) -> Self {
        let theirs = |name: &str| !matches!(name, header::REASON | header::DETAIL);
        let (mut headers, mut bytes, mut left_out) = (Vec::new(), 0, 0);
        for header in record.headers.iter().filter(|header| theirs(header.name)) {
            let size = header.name.len() + header.value.len();
            if bytes + size > HEADER_BYTES_MAX {
                left_out += 1;
                continue;
            }
            bytes += size;
            headers.push((header.name.to_owned(), header.value.to_vec()));
        }
        if left_out > 0 {
            detail += &format!("; {left_out} of its headers left out here");
        }
        let value = match record.value {
            Some(value) if value.len() > DATA_BYTES_MAX => {
                detail += &format!("; its value of {} bytes is left out here", value.len());
                None
            }
            value => value.map(Bytes::copy_from_slice),
        };
        Self {
            headers,
            value,
            detail,
        }
    }
}
