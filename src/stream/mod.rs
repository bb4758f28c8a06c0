//! (written in this session)
