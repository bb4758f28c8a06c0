mod role;
mod store;
