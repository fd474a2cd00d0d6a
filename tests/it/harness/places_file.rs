//! A file in MaxMind's format, written as its specification (version 2.0) has it: a binary tree over the bits of
//! addresses, then the records that its leaves point at, then a marker and metadata.

use ipnet::IpNet;
use serde_json::{Value, json};

/// Records of the tree have 24 bits, so nodes have 6 bytes.
const RECORD_BITS: u16 = 24;
/// Zeros between tree and data; pointers into the data count them.
const SEPARATOR: usize = 16;
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

#[derive(Clone, Copy)]
enum Record {
    Nothing,
    Node(usize),
    /// Where it begins in the data.
    Data(usize),
}

/// A file that says `record` of each address in `network`. IPv4 networks stand at `::/96`.
pub(crate) fn places_file(networks: &[(&str, Value)]) -> Vec<u8> {
    let mut tree = vec![[Record::Nothing; 2]];
    let mut data = Vec::new();
    for (network, record) in networks {
        let (address, prefix) = match network.parse().expect("a network") {
            IpNet::V4(net) => (u128::from(u32::from(net.network())), net.prefix_len() + 96),
            IpNet::V6(net) => (u128::from(net.network()), net.prefix_len()),
        };
        let leaf = Record::Data(data.len());
        write(&mut data, record);
        let mut node = 0;
        for depth in 0..prefix {
            let bit = usize::from(address >> (127 - depth) & 1 == 1);
            if depth + 1 == prefix {
                tree[node][bit] = leaf;
            } else if let Record::Node(next) = tree[node][bit] {
                node = next;
            } else {
                tree.push([Record::Nothing; 2]);
                let next = tree.len() - 1;
                tree[node][bit] = Record::Node(next);
                node = next;
            }
        }
    }
    let mut file = Vec::new();
    for record in tree.iter().flatten() {
        let number = match record {
            Record::Nothing => tree.len(),
            Record::Node(index) => *index,
            Record::Data(offset) => tree.len() + SEPARATOR + offset,
        };
        file.extend_from_slice(&u32::try_from(number).unwrap().to_be_bytes()[1..]);
    }
    file.extend_from_slice(&[0; SEPARATOR]);
    file.extend_from_slice(&data);
    file.extend_from_slice(MARKER);
    write_metadata(&mut file, tree.len());
    file
}

fn write_metadata(out: &mut Vec<u8>, nodes: usize) {
    const ENTRIES: usize = 9;
    head(out, 7, ENTRIES);
    for (name, kind, number) in [
        ("binary_format_major_version", 5, 2),
        ("binary_format_minor_version", 5, 0),
        ("build_epoch", 9, 1_795_248_000),
        ("ip_version", 5, 6),
        ("node_count", 6, u64::try_from(nodes).unwrap()),
        ("record_size", 5, u64::from(RECORD_BITS)),
    ] {
        write(out, &json!(name));
        // The fewest bytes that hold it.
        let bytes = number.to_be_bytes();
        let bytes = &bytes[usize::try_from(number.leading_zeros() / 8).unwrap()..];
        head(out, kind, bytes.len());
        out.extend_from_slice(bytes);
    }
    for (name, value) in [
        ("database_type", json!("Test-City")),
        ("description", json!({ "en": "Places of the tests" })),
        ("languages", json!(["en"])),
    ] {
        write(out, &json!(name));
        write(out, &value);
    }
}

/// Text, arrays and maps: all that a record of places is made of.
fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(text) => {
            head(out, 2, text.len());
            out.extend_from_slice(text.as_bytes());
        }
        Value::Array(items) => {
            head(out, 11, items.len());
            for item in items {
                write(out, item);
            }
        }
        Value::Object(fields) => {
            head(out, 7, fields.len());
            for (name, value) in fields {
                write(out, &json!(name));
                write(out, value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => panic!("no part of a place: {value}"),
    }
}

/// The control byte, with the second one that types above 7 have, and that of sizes from 29 on.
fn head(out: &mut Vec<u8>, kind: u8, size: usize) {
    let (inline, extra) = match size {
        0..29 => (size, None),
        29..285 => (29, Some(size - 29)),
        _ => panic!("nothing in a place is as long as {size} bytes"),
    };
    let inline = u8::try_from(inline).unwrap();
    match kind {
        1..=7 => out.push(kind << 5 | inline),
        _ => out.extend_from_slice(&[inline, kind - 7]),
    }
    if let Some(extra) = extra {
        out.push(u8::try_from(extra).unwrap());
    }
}
