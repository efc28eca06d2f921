//! The state and what is drawn of it, on screens of several sizes.
