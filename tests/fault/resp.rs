//! Where a request or an answer ends in the bytes of a connection.

/// The length of the first whole RESP value; nothing where more bytes have to come.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut open) = (0, 1);
    while open > 0 {
        let line = bytes.get(at..)?;
        let end = line.iter().position(|byte| *byte == b'\n')?;
        let text = std::str::from_utf8(&line[1..end]).unwrap_or_default();
        // What is no number, or less than zero, has nothing below it.
        let count: usize = text.trim_end().parse().unwrap_or(0);
        let is_nil = text.starts_with('-');
        at += end + 1;
        open -= 1;
        match line[0] {
            b'$' | b'=' | b'!' if !is_nil => at += count + 2,
            b'*' | b'~' | b'>' => open += count,
            b'%' => open += 2 * count,
            _ => {}
        }
    }
    (at <= bytes.len()).then_some(at)
}
