//! The steps that verbs are made of, shared by the single commands, `bench` and `demo`.
//!
//! Each step takes and yields plain values; files of ours are read and written in [`store`] alone.

pub mod child;
pub mod client;
pub mod data;
pub mod engine;
pub mod figures;
pub mod images;
pub mod models;
pub mod planning;
pub mod server;
pub mod sides;
pub mod simulation;
pub mod store;
pub mod training;
