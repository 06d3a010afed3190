//! Files of Polyveil: a self-describing container and the codecs of every public object.
//!
//! ```text
//! ┌────────────┬───────────┬───────────┬─────┬──────────┐
//! │ header 112 │ section 1 │ section 2 │ ... │ end mark │
//! └────────────┴───────────┴───────────┴─────┴──────────┘
//! ```
//!
//! The header names the [`Kind`], its format version, the parameter set, the plan and the key that
//! the file belongs to. Each section has a name, a length and a checksum that covers the header,
//! so that no section can be moved to another place or file. The end mark tells a whole file from
//! a truncated one.
//!
//! Checksums find damage and mix-ups; they are no signature: whoever can write a file can make
//! a valid one. The codecs work on any `Read` and `Write`, use no threads and open no files.
//!
//! The secret key is not known here (this crate does not depend on `polyveil-client`); only its
//! [`Kind`] is, so that its file can be recognised and refused where it does not belong.
#![forbid(unsafe_code)]

pub mod bits;
mod ciphertexts;
mod error;
mod header;
mod keys;
mod kind;
mod old;
mod plans;
mod reader;
mod record;
mod writer;

pub use ciphertexts::{
    CiphertextReader, CiphertextWriter, Count, MAX_IMAGES, MAX_PER_BATCH, Stored, read_count,
};
pub use error::{FormatError, ShortId};
pub use header::{CONTAINER_VERSION, HEADER_BYTES, Header, MAGIC};
pub use keys::{
    EvaluationKeyReader, EvaluationKeyWriter, open_evaluation_keys, read_evaluation_keys,
    write_evaluation_keys,
};
pub use kind::{KINDS, Kind, KindInfo};
pub use plans::{read_client_plan, read_server_plan, write_client_plan, write_server_plan};
pub use reader::{Reader, Section};
pub use record::{read_parameters, read_record, write_record};
pub use writer::{MAX_NAME, Writer};
