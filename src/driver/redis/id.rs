//! An entry's id as an argument. Thousands a second are written, so they take no formatter.

use redis::{RedisWrite, ToRedisArgs};

use crate::delivery::EntryId;

/// Digits of the largest number.
const DIGITS: usize = 20;

/// The text of an id, as it stands in a command.
pub(super) struct IdText {
    text: [u8; 2 * DIGITS + 1],
    from: usize,
}

impl IdText {
    pub(super) fn of(id: EntryId) -> Self {
        let (mut text, mut from) = ([0; 2 * DIGITS + 1], 2 * DIGITS + 1);
        write(id.seq, &mut text, &mut from);
        from -= 1;
        text[from] = b'-';
        write(id.millis, &mut text, &mut from);
        Self { text, from }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[self.from..]
    }
}

/// Writes a number's digits before `from`, the last first.
fn write(mut number: u64, text: &mut [u8], from: &mut usize) {
    loop {
        *from -= 1;
        text[*from] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            return;
        }
    }
}

impl ToRedisArgs for IdText {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        out.write_arg(self.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_text_of_the_id() {
        for (millis, seq) in [(0, 0), (7, 10), (1_700_000_000_000, 9), (u64::MAX, u64::MAX)] {
            let id = EntryId { millis, seq };
            assert_eq!(IdText::of(id).as_bytes(), id.to_string().as_bytes());
        }
    }
}
