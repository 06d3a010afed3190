//! A walk over the wire format before decoding, so that a hostile file is refused by count.
//!
//! A decoded message takes many times the room of its two bytes in the file; bounding the number
//! of fields bounds what the decoder allocates. Packed integers grow from one byte to eight, so
//! their bytes are bounded as well; other payloads are stored as large as they are.

use super::OnnxError;

/// Largest file read: 2 GiB, the most that a protobuf may have.
pub(super) const MAX_BYTES: u64 = 1 << 31;
/// Most fields in all messages together. A network of a thousand layers has about fifty thousand.
const MAX_FIELDS: u64 = 1 << 20;
/// Most bytes of integers in packed form.
const MAX_PACKED: u64 = 1 << 24;

/// Messages that the walk enters.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
}

impl Kind {
    /// The kind of a field's message, where it is one that is read.
    fn child(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) => Self::Graph,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5) => Self::Tensor,
            (Self::Node, 5) => Self::Attribute,
            _ => return None,
        })
    }

    fn is_packed_integers(self, field: u64) -> bool {
        matches!((self, field), (Self::Tensor, 1 | 5 | 7) | (Self::Attribute, 8))
    }
}

/// Checks size, framing and counts of a serialised model.
pub(super) fn check(bytes: &[u8]) -> Result<(), OnnxError> {
    limit("bytes", bytes.len() as u64, MAX_BYTES)?;
    Scan::default().message(bytes, Kind::Model)
}

pub(super) fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), OnnxError> {
    if found > limit { Err(OnnxError::Limit { what, found, limit }) } else { Ok(()) }
}

#[derive(Default)]
struct Scan {
    fields: u64,
    packed: u64,
}

impl Scan {
    fn message(&mut self, mut rest: &[u8], kind: Kind) -> Result<(), OnnxError> {
        while !rest.is_empty() {
            self.fields += 1;
            limit("fields", self.fields, MAX_FIELDS)?;
            let tag = varint(&mut rest)?;
            let length = match tag & 7 {
                0 => {
                    varint(&mut rest)?;
                    continue;
                }
                1 => 8,
                5 => 4,
                2 => varint(&mut rest)?,
                other => return Err(OnnxError::Format(format!("wire type {other} in a message"))),
            };
            let payload = usize::try_from(length).ok().and_then(|n| rest.split_at_checked(n));
            let Some((payload, after)) = payload else {
                return Err(OnnxError::Format(format!(
                    "cut short: a field of {length} bytes, {} left",
                    rest.len()
                )));
            };
            rest = after;
            if tag & 7 != 2 {
                continue;
            }
            if kind.is_packed_integers(tag >> 3) {
                self.packed += length;
                limit("bytes of integers", self.packed, MAX_PACKED)?;
            }
            if matches!((kind, tag >> 3), (Kind::Graph, 11 | 12)) {
                // A description of an input or output: a field takes two bytes at least.
                self.fields += length / 2;
            }
            if let Some(child) = kind.child(tag >> 3) {
                self.message(payload, child)?;
            }
        }
        Ok(())
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, OnnxError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((&byte, after)) = rest.split_first() else {
            return Err(OnnxError::Format("cut short inside a number".into()));
        };
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(OnnxError::Format("a number of more than ten bytes".into()))
}
