//! The form in which headers stand in a row: for each one the length of the name (u16), the name,
//! the length of the value (u32), the value; little endian.

use ringback_core::log::Header;
use smallvec::SmallVec;

/// Most records have fewer headers than this.
pub(super) type Headers<'a> = SmallVec<[Header<'a>; 20]>;

/// The bytes that [`encode`] will add; `None` when a name or value is too long for the form.
pub(super) fn encoded_len(headers: &[Header<'_>]) -> Option<usize> {
    headers.iter().try_fold(0_usize, |sum, header| {
        u16::try_from(header.name.len()).ok()?;
        u32::try_from(header.value.len()).ok()?;
        sum.checked_add(6 + header.name.len() + header.value.len())
    })
}

/// Appends the headers. [`encoded_len`] has checked the lengths.
pub(super) fn encode(headers: &[Header<'_>], out: &mut Vec<u8>) {
    for header in headers {
        let name = u16::try_from(header.name.len()).unwrap_or(u16::MAX);
        let value = u32::try_from(header.value.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&name.to_le_bytes());
        out.extend_from_slice(header.name.as_bytes());
        out.extend_from_slice(&value.to_le_bytes());
        out.extend_from_slice(header.value);
    }
}

/// Reads what [`encode`] wrote; `None` when it is damaged.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Headers<'_>> {
    let mut headers = Headers::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        headers.push(Header {
            name: std::str::from_utf8(name).ok()?,
            value,
        });
        bytes = rest;
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_and_damage_is_noticed() {
        let headers = [
            Header {
                name: "a",
                value: b"",
            },
            Header {
                name: "ce_id",
                value: &[0, 255],
            },
            Header {
                name: "",
                value: b"x",
            },
        ];
        let mut bytes = Vec::new();
        encode(&headers, &mut bytes);
        assert_eq!(Some(bytes.len()), encoded_len(&headers));
        assert_eq!(decode(&bytes).unwrap().as_slice(), headers);
        assert!(decode(&[]).unwrap().is_empty());
        for cut in 1..bytes.len() {
            // A cut between two headers leaves a shorter, valid list.
            assert!(decode(&bytes[..cut]).is_none_or(|read| read.len() < headers.len()));
        }
        assert!(decode(&[5, 0, b'x']).is_none());
    }
}
