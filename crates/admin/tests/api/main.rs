//! The API as a client sees it, over the local engine.

mod access;
mod configuration;
mod reading;
mod replays;
mod rig;
mod secrets;
