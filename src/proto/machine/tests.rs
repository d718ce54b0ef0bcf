//! What the machine must do, as tables and properties.
