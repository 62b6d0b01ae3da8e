//! Promises about reading anywhere.

use ringback_core::catalogue::Family;
use ringback_core::log::{Append, Header, Log, Offset, Reader};
use ringback_core::topics::{Partition, Role};

use super::support::{Copied, Writing, topic};

/// Key, headers and value.
type Case<'a> = (Option<&'a [u8]>, &'a [Header<'a>], Option<&'a [u8]>);

/// Key, headers and value come back as they were: order and repetition of headers, empty and binary
/// values, a value as large as data may be, and no value at all.
pub fn records_come_back_as_they_were<L: Log>(log: &L) {
    let topic = topic(log, Role::Events(Family::Extension));
    let large: Vec<u8> = (0..256 * 1024_u32)
        .map(|n| n.to_le_bytes()[n as usize % 2])
        .collect();
    let many: Vec<_> = (0..40_u8)
        .map(|_| Header {
            name: "h",
            value: b"same",
        })
        .collect();
    let headers = [
        Header {
            name: "ce_id",
            value: b"1",
        },
        Header {
            name: "binary",
            value: &[0, 255, 10],
        },
        Header {
            name: "ce_id",
            value: b"2",
        },
        Header {
            name: "empty",
            value: b"",
        },
    ];
    let key: Option<&[u8]> = Some(b"one/key");
    let cases: [Case<'_>; 7] = [
        (key, &headers, Some(b"text")),
        (key, &[], Some(b"")),
        (key, &[], None),
        (None, &[], Some(b"no key")),
        (Some(&[0, 159, 255]), &[], Some(&[0, 159, 146, 150])),
        (key, &headers, Some(&large)),
        (key, &many, Some(b"{}")),
    ];
    let writing = Writing::new(log);
    let mut reader = log.reader().expect("a reader");
    for (key, headers, value) in cases {
        let appended = writing.put(Append {
            topic,
            key,
            headers,
            value,
        });
        let expected = Copied {
            partition: appended.partition,
            offset: appended.offset,
            appended: appended.at,
            key: key.map(<[u8]>::to_vec),
            headers: headers
                .iter()
                .map(|h| (h.name.to_owned(), h.value.to_vec()))
                .collect(),
            value: value.map(<[u8]>::to_vec),
        };
        let found = read(
            &mut reader,
            appended.partition,
            appended.offset,
            appended.offset + 1,
        );
        assert!(
            found == [expected],
            "a record changed on its way; found {}",
            found.len()
        );
    }
}

/// Bounds say what is there; a range gives what is in it, in order, as far as it exists.
pub fn reader_knows_bounds_and_ranges<L: Log>(log: &L) {
    let topic = topic(log, Role::Parked);
    let mut reader = log.reader().expect("a reader");
    for partition in log.topics().partitions(topic) {
        assert_eq!(
            reader.bounds(partition).expect("bounds"),
            0..0,
            "nothing was written"
        );
        assert!(read(&mut reader, partition, 0, 100).is_empty());
    }
    let writing = Writing::new(log);
    let written: Vec<_> = (0..10)
        .map(|n| writing.text(topic, "k", &format!("{n}")))
        .collect();
    let partition = written[0].partition;
    let bounds = reader.bounds(partition).expect("bounds");
    assert_eq!((bounds.start, bounds.end), (0, written[9].offset + 1));
    let all: Vec<_> = log.topics().partitions(topic).collect();
    let at_once = reader.all_bounds(&all).expect("all bounds");
    let each = all.iter().map(|one| reader.bounds(*one).expect("bounds"));
    assert_eq!(at_once, each.collect::<Vec<_>>());
    assert_eq!(reader.all_bounds(&[]).expect("no bounds"), []);
    let offsets = |range: &[ringback_core::log::Appended]| -> Vec<Offset> {
        range.iter().map(|appended| appended.offset).collect()
    };
    let mut check = |from: usize, to: usize, start, end| {
        let found: Vec<_> = read(&mut reader, partition, start, end)
            .iter()
            .map(|record| (record.offset, record.text()))
            .collect();
        let texts = (from..to).map(|n| format!("{n}"));
        let expected: Vec<_> = offsets(&written[from..to]).into_iter().zip(texts).collect();
        assert_eq!(found, expected, "records {start}..{end}");
    };
    check(0, 10, 0, bounds.end);
    check(3, 6, written[3].offset, written[6].offset);
    check(9, 10, written[9].offset, bounds.end + 1000);
    check(0, 0, bounds.end, bounds.end + 10);
    check(0, 0, 5, 5);
    let unknown = Partition { topic, index: 99 };
    assert!(reader.bounds(unknown).is_err(), "there is no partition 99");
    let error = reader.all_bounds(&[partition, unknown]);
    assert!(error.is_err(), "not of one of two either");
}

fn read(reader: &mut impl Reader, partition: Partition, from: Offset, to: Offset) -> Vec<Copied> {
    let mut found = Vec::new();
    reader
        .read(partition, from..to, &mut |record| {
            found.push(Copied::of(&record))
        })
        .expect("reading");
    found
}
