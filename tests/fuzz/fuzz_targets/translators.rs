#![no_main]

// The first byte is the front.
libfuzzer_sys::fuzz_target!(|data: &[u8]| match data.first() {
    Some(b'd') => mcp_bridge_fuzz::downgrade(data),
    Some(b's') => mcp_bridge_fuzz::shared(data),
    _ => mcp_bridge_fuzz::upgrade(data),
});
