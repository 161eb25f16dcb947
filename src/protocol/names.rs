//! Names in constant lists, looked up while compiling.

/// Where `name` stands in `list`; to be used in constants.
///
/// # Panics
///
/// If it is not there: in a constant, that is an error of compilation.
#[must_use]
pub const fn position(list: &[&str], name: &str) -> usize {
    let mut index = 0;
    while index < list.len() {
        if equal(list[index].as_bytes(), name.as_bytes()) {
            return index;
        }
        index += 1;
    }
    panic!("the name is not in the list");
}

const fn equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names are found where they stand.
    #[test]
    fn positions() {
        const LIST: [&str; 3] = ["a", "ab", "b"];
        assert_eq!(position(&LIST, "a"), 0);
        assert_eq!(position(&LIST, "ab"), 1);
        assert_eq!(position(&LIST, "b"), 2);
    }

    /// Goal: a name that is not listed is refused.
    #[test]
    #[should_panic(expected = "not in the list")]
    fn unknown_name() {
        let _ = position(&["a"], "c");
    }
}
