//! Code that turns matching events into firings: one file per detector.
