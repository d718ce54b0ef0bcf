//! Names of things: JSON-RPC ids of either side, streams, events, sessions.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The longest JSON-RPC id or progress token taken from a client, in bytes. Each call in flight keeps its own.
pub const MAX_ID: usize = 8 * 1024;

/// A JSON-RPC id or progress token, exactly as its sender spelt it. A clone shares the text.
///
/// Two are equal when they denote the same value: `"a"` equals `"\u0061"`, but `1` is not `"1"`
/// (2025-11-25 `basic`: a response carries "the same ID as the request").
#[derive(Clone, Debug)]
pub struct Id {
    raw: Arc<str>,
    /// The value in one spelling, where that is not the one of `raw`.
    canonical: Option<Arc<str>>,
}

impl Id {
    /// The id in a JSON token, or `None` where the token is neither a string nor an integer
    /// (spec `basic`: "string or integer", never null), or is longer than [`MAX_ID`].
    pub fn parse(token: &str) -> Option<Self> {
        if token.len() > MAX_ID {
            return None;
        }
        let canonical: Option<Arc<str>> = match token.as_bytes().first()? {
            b'"' if !token.contains('\\') => None,
            b'"' => {
                let value: Cow<'_, str> = serde_json::from_str(token).ok()?;
                Some(serde_json::to_string(&value).ok()?.into())
            }
            b'-' | b'0'..=b'9' => {
                let digits = token.strip_prefix('-').unwrap_or(token);
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                (token == "-0").then(|| "0".into())
            }
            _ => return None,
        };
        Some(Self { raw: token.into(), canonical })
    }

    /// The JSON token, byte for byte as it came.
    pub fn as_json(&self) -> &str {
        &self.raw
    }

    fn canonical(&self) -> &str {
        self.canonical.as_deref().unwrap_or(&self.raw)
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self { raw: number.to_string().into(), canonical: None }
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for Id {}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

/// The id a client gave to its request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(pub Id);

/// The id a child gave to its own request (sampling, elicitation, roots, ping).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChildId(pub Id);

/// The token by which a request asked for progress notifications.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProgressToken(pub Id);

/// The id under which the bridge passes a request on. Of two ids of one link the older one is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeId {
    /// How many were given out before it.
    order: u64,
    /// What the child sees.
    number: u32,
}

impl fmt::Display for BridgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

/// The number that a child echoed. Children that keep numbers as floats write `7.0` or `7e0`, others quote them.
pub fn echoed(token: &str) -> Option<u64> {
    let token = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(token);
    if !token.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    if let Ok(number) = token.parse() {
        return Some(number);
    }
    let number: f64 = token.parse().ok()?;
    // 2^53: beyond it a float no longer names one integer.
    let exact = number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number);
    exact.then_some(number as u64)
}

/// The least number of an id, and how many there are: below 2^31, because some servers read an `int32`, and not so small
/// that clients use it for theirs.
const LEAST: u32 = 1 << 20;
const SPAN: u32 = (1 << 31) - LEAST;

/// Gives out the ids of one link.
///
/// Who shares a child with others must not be able to name their requests: a server that reads a message otherwise
/// than the bridge would let it answer, cancel or end them. So the numbers look random. They are the order in which they
/// were given out under a cipher, which keeps no table, gives no number twice in 2^31, and can be undone.
#[derive(Debug)]
pub struct Ids {
    /// `None`: the numbers count from 1.
    cipher: Option<Speck>,
    given: u64,
}

impl Ids {
    /// Ids whose numbers nobody can guess who does not know this key.
    pub fn secret(key: u64) -> Self {
        Self { cipher: Some(Speck::new(key)), given: 0 }
    }

    /// Ids that count from 1, which a test can write down.
    pub fn counted() -> Self {
        Self { cipher: None, given: 0 }
    }

    /// The next id. It must not be `taken`, as one may be that was given out 2^31 before.
    pub(super) fn next(&mut self, taken: impl Fn(BridgeId) -> bool) -> BridgeId {
        loop {
            let order = self.given;
            let id = BridgeId { order, number: self.number(order) };
            self.given += 1;
            let before = order.checked_sub(SPAN.into());
            if !before.is_some_and(|order| taken(BridgeId { order, ..id })) {
                return id;
            }
        }
    }

    /// The newest id that has this number, if one was given out.
    pub(super) fn find(&self, number: u64) -> Option<BridgeId> {
        let number = u32::try_from(number).ok()?;
        let place = match &self.cipher {
            None => number.checked_sub(1).filter(|place| *place < SPAN)?,
            Some(cipher) => {
                let place = |number: u32| number.checked_sub(LEAST).filter(|place| *place < SPAN);
                place(number)?;
                walk(number, |number| cipher.decrypt(number)) - LEAST
            }
        };
        let newest = self.given.checked_sub(1)?;
        let behind = (newest + u64::from(SPAN - place)) % u64::from(SPAN);
        Some(BridgeId { order: newest.checked_sub(behind)?, number })
    }

    fn number(&self, order: u64) -> u32 {
        let place = u32::try_from(order % u64::from(SPAN)).unwrap_or_default();
        match &self.cipher {
            None => place + 1,
            Some(cipher) => walk(LEAST + place, |number| cipher.encrypt(number)),
        }
    }
}

/// Goes on until a number is in the range of ids again: a permutation of all numbers is so one of this range. Two steps
/// are the mean.
fn walk(mut number: u32, step: impl Fn(u32) -> u32) -> u32 {
    loop {
        number = step(number);
        if (LEAST..LEAST + SPAN).contains(&number) {
            return number;
        }
    }
}

/// Speck32/64: a cipher of 32-bit blocks (Beaulieu et al., "The Simon and Speck Families of Lightweight Block Ciphers",
/// 2013, IACR 2013/404).
struct Speck([u16; Self::ROUNDS]);

impl Speck {
    const ROUNDS: usize = 22;

    fn new(key: u64) -> Self {
        let word = |place: u32| (key >> (16 * place)) as u16;
        let (mut round_key, mut words) = (word(0), [word(1), word(2), word(3)]);
        let keys = std::array::from_fn(|round| {
            let [first, second, third] = words;
            let this = round_key;
            let next = this.wrapping_add(first.rotate_right(7)) ^ round as u16;
            words = [second, third, next];
            round_key = this.rotate_left(2) ^ next;
            this
        });
        Self(keys)
    }

    fn encrypt(&self, block: u32) -> u32 {
        let (mut left, mut right) = ((block >> 16) as u16, block as u16);
        for key in self.0 {
            left = left.rotate_right(7).wrapping_add(right) ^ key;
            right = right.rotate_left(2) ^ left;
        }
        u32::from(left) << 16 | u32::from(right)
    }

    fn decrypt(&self, block: u32) -> u32 {
        let (mut left, mut right) = ((block >> 16) as u16, block as u16);
        for key in self.0.iter().rev() {
            right = (right ^ left).rotate_right(2);
            left = (left ^ key).wrapping_sub(right).rotate_left(7);
        }
        u32::from(left) << 16 | u32::from(right)
    }
}

impl fmt::Debug for Speck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Speck(…)")
    }
}

/// One ordered sequence of messages: the answer to one POST, the listening GET, or the lane of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// What a GET listens to. Each session has one; POST streams count from 1.
    pub const LISTENING: Self = Self(0);
}

/// Where in which stream an event stands, counted from 1; 0 is the place before the first.
///
/// It is the SSE `id:`, unique over all streams of a session (2025-11-25 `basic/transports`, "Resumability").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    pub stream: StreamId,
    /// The place in it.
    pub place: u64,
}

impl EventId {
    /// Reads `<stream>-<place>` as [`EventId`] writes it: no sign, no leading zero.
    pub fn parse(text: &str) -> Option<Self> {
        let (stream, place) = text.split_once('-')?;
        let id = Self { stream: StreamId(stream.parse().ok()?), place: place.parse().ok()? };
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stream.0, self.place)
    }
}

/// The length of the random part of a session id, in characters.
const RANDOM: usize = 48;

/// The longest session id, in bytes. Routers in front accept no other shape than 1 to 128 of `[A-Za-z0-9-]`.
const MAX_SESSION_ID: usize = 128;

/// The value of `Mcp-Session-Id`: 192 random bits in hex. Where no token is asked for, it alone gives access to the
/// session: it is never logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Box<str>);

impl SessionId {
    /// The id made of random bytes, behind the label of the replica by which a balancer can route.
    pub fn from_random(replica: Option<&str>, bytes: [u8; 24]) -> Self {
        use fmt::Write;
        let mut text = replica.map_or_else(String::new, |label| format!("{label}-"));
        for byte in bytes {
            let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        }
        Self(text.into())
    }

    /// Whether it has the form of those that a bridge makes.
    pub fn is_random(&self) -> bool {
        let (label, random) =
            self.0.split_at_checked(self.0.len().saturating_sub(RANDOM)).unwrap_or_default();
        let is_hex = random.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        random.len() == RANDOM && is_hex && (label.is_empty() || label.ends_with('-'))
    }

    /// The id in a header, or `None` where no session of any bridge can have it.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=MAX_SESSION_ID).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        fits.then(|| Self(text.into()))
    }

    /// The header's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight characters behind the replica's label, which is what logs call the session by; 160 bits stay
    /// secret.
    pub fn short(&self) -> &str {
        let random = self.0.len().saturating_sub(RANDOM);
        self.0.get(random..random + 8).unwrap_or(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(token: &str) -> Id {
        Id::parse(token).unwrap_or_else(|| panic!("{token} is an id"))
    }

    #[test]
    fn strings_and_integers_are_ids_and_nothing_else_is() {
        for token in ["1", "0", "-3", "\"\"", "\"a\"", "123456789012345678901234567890", "\"\\u00e9\""] {
            assert_eq!(id(token).as_json(), token, "an id keeps its spelling");
        }
        for token in ["null", "true", "1.5", "1.0", "1e3", "{}", "[]", "", "-", "[1]"] {
            assert!(Id::parse(token).is_none(), "{token} is no id");
        }
        assert!(Id::parse(&format!("\"{}\"", "x".repeat(MAX_ID))).is_none(), "ids are bounded");
    }

    #[test]
    fn ids_are_equal_by_value_and_type() {
        assert_eq!(id("\"a\""), id("\"\\u0061\""));
        assert_eq!(id("\"a/b\""), id("\"a\\/b\""));
        assert_eq!(id("0"), id("-0"));
        assert_ne!(id("1"), id("\"1\""));
        assert_ne!(id("9007199254740993"), id("9007199254740992"));
    }

    #[test]
    fn a_childs_echo_is_read_in_any_spelling_of_the_number() {
        for token in ["7", "7.0", "7e0", "70e-1", "\"7\""] {
            assert_eq!(echoed(token), Some(7), "{token}");
        }
        for token in ["null", "-7", "\"+7\"", "7.5", "\"x\"", "{}", "1e300", "NaN", "inf"] {
            assert_eq!(echoed(token), None, "{token}");
        }
    }

    /// Appendix C of the paper.
    #[test]
    fn the_cipher_is_the_published_one() {
        let cipher = Speck::new(0x1918_1110_0908_0100);
        assert_eq!(cipher.encrypt(0x6574_694c), 0xa868_42f2);
        assert_eq!(cipher.decrypt(0xa868_42f2), 0x6574_694c);
    }

    #[test]
    fn ids_are_found_by_their_numbers_and_no_others_are() {
        for mut ids in [Ids::counted(), Ids::secret(7)] {
            assert_eq!(ids.find(1), None, "none was given out");
            let given: Vec<_> = (0..10_000).map(|_| ids.next(|_| false)).collect();
            assert!(given.is_sorted(), "the older one is the lesser");
            for id in &given {
                assert_eq!(ids.find(id.number.into()), Some(*id));
            }
            let numbers: std::collections::BTreeSet<_> = given.iter().map(|id| id.number).collect();
            assert_eq!(numbers.len(), given.len(), "no number twice");
            let unknown = (0..1 << 16).chain((1 << 31) - 9..(1 << 31) + 9).chain([1 << 32, u64::MAX]);
            for number in
                unknown.filter(|number| !u32::try_from(*number).is_ok_and(|number| numbers.contains(&number)))
            {
                assert_eq!(ids.find(number), None, "{number}");
            }
        }
    }

    #[test]
    fn the_numbers_of_ids_say_nothing_of_one_another_and_fit_an_int32() {
        let numbers = |key| {
            let mut ids = Ids::secret(key);
            (0..1000).map(|_| ids.next(|_| false).number).collect::<Vec<_>>()
        };
        let (one, other) = (numbers(1), numbers(2));
        assert!(one.iter().chain(&other).all(|number| (1 << 20..1 << 31).contains(number)));
        assert!(!one.is_sorted() && one.iter().zip(&other).all(|(one, other)| one != other));
        let high = one.iter().filter(|number| **number >= LEAST + SPAN / 2).count();
        assert!((400..600).contains(&high), "{high} of 1000 are in the upper half");
        let near = one.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < SPAN / 100).count();
        assert!(near < 60, "{near} of 1000 are near the one before");
    }

    #[test]
    fn a_number_comes_again_when_all_were_given_out_unless_its_request_is_still_there() {
        for mut ids in [Ids::counted(), Ids::secret(7)] {
            let first = ids.next(|_| false);
            ids.given = SPAN.into();
            let again = ids.next(|id| id == first);
            assert_ne!(again.number, first.number, "the first is taken");
            ids.given = SPAN.into();
            let again = ids.next(|_| false);
            assert_eq!(again.number, first.number);
            assert!(again > first);
            assert_eq!(ids.find(first.number.into()), Some(again), "the newest has the number");
        }
    }

    #[test]
    fn event_ids_read_back_only_as_written() {
        let event = EventId { stream: StreamId(12), place: 7 };
        assert_eq!(event.to_string(), "12-7");
        assert_eq!(EventId::parse("12-7"), Some(event));
        for text in [
            "",
            "-",
            "12",
            "12-",
            "-7",
            "012-7",
            "12-07",
            "+1-7",
            "1-2-3",
            "a-1",
            " 1-1",
            "99999999999999999999-1",
        ] {
            assert_eq!(EventId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn session_ids_fit_what_routers_accept_and_hide_in_debug_output() {
        let labelled = SessionId::from_random(Some("pod-1"), [0xab; 24]);
        assert!(labelled.as_str().starts_with("pod-1-ab"));
        assert_eq!(labelled.short(), "abababab");
        let session = SessionId::from_random(None, [0xab; 24]);
        assert_eq!(session.as_str().len(), 48);
        assert_eq!(SessionId::parse(session.as_str()), Some(session.clone()));
        assert_eq!(format!("{session:?}"), "SessionId(abababab…)");
        for text in ["", "a b", "a_b", "ä", &"x".repeat(129)] {
            assert_eq!(SessionId::parse(text), None, "{text:?}");
        }
        assert!(labelled.is_random() && session.is_random());
        for text in
            ["platform-made", "8f14e45f-ceea-467f-a9f0-2c1d7e0b3f11", &"AB".repeat(24), &"ab".repeat(25)]
        {
            assert!(!SessionId::parse(text).unwrap().is_random(), "{text}");
        }
    }
}
