//! The steps that verbs are made of, shared by the single commands, `bench` and `demo`.
//!
//! Each step takes and yields plain values; files are read and written in [`store`] alone.

pub mod data;
pub mod images;
pub mod models;
pub mod training;
