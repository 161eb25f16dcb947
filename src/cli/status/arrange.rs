//! Puts answers in the order of the replicas, whatever the order in which addresses were listed.
//!
//! Each server reports its index, so a wrong order is found, and the right one with it. Clients do
//! not connect to standbys, so a list may end before them. Not covered: the state of the replicas.

use super::ask::Answer;
use crate::io::twins::Twins;

/// An answer at its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The index of the replica: the one that it reported, or the place of its address in the right
    /// list. None if neither is known, or if another row has that index.
    pub replica: Option<u8>,
    /// The answer.
    pub answer: Answer,
}

impl Row {
    /// Returns the row's name in messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self.replica {
            Some(replica) => format!("replica {replica}"),
            None => self.answer.address.clone(),
        }
    }
}

/// Answers in the order of the replicas, and what is wrong with the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arranged {
    /// The answers in the order of the indexes; those without an index come last.
    pub rows: Vec<Row>,
    /// Problems of the list.
    pub problems: Vec<String>,
}

/// Nodes of a cluster.
#[derive(Clone, Copy)]
struct Nodes {
    replicas: usize,
    standbys: usize,
}

impl Nodes {
    /// The largest numbers that any replica reports; none if no replica answered.
    fn of(answers: &[Answer]) -> Option<Nodes> {
        let said = answers.iter().filter_map(Answer::said);
        let nodes = said.map(|said| Nodes {
            replicas: said.body.replica_count.into(),
            standbys: said.body.standby_count.into(),
        });
        nodes.max_by_key(Nodes::count)
    }

    fn count(&self) -> usize {
        self.replicas + self.standbys
    }

    /// Addresses that a list should have whose nodes are these: standbys only if one is listed.
    fn to_list(self, owners: &[Option<usize>], listed: usize) -> usize {
        let has_standby = owners.iter().skip(self.replicas).any(Option::is_some);
        if has_standby || listed > self.replicas { self.count() } else { self.replicas }
    }

    /// The words for the nodes of a list.
    fn noun(self, count: usize) -> &'static str {
        if count > self.replicas { "replicas and standbys" } else { "replicas" }
    }
}

/// Arranges answers that are in the order of the list.
#[must_use]
pub fn arrange(answers: &[Answer]) -> Arranged {
    let mut problems = Vec::new();
    // Of each index, the place of the first address that reported it.
    let mut owners: Vec<Option<usize>> = Vec::new();
    let mut surplus = Vec::new();
    for (place, answer) in answers.iter().enumerate() {
        let Some(said) = answer.said() else { continue };
        let index = usize::from(said.replica);
        owners.resize(owners.len().max(index + 1), None);
        if let Some(first) = owners[index] {
            problems.push(same_index(&answers[first], answer));
            surplus.push(place);
        } else {
            owners[index] = Some(place);
        }
    }
    let Some(nodes) = Nodes::of(answers) else {
        return Arranged { rows: in_order_of_list(answers, &surplus), problems };
    };
    let count = nodes.to_list(&owners, answers.len());
    owners.resize(owners.len().max(count), None);
    let right = owners.iter().enumerate().all(|(index, owner)| owner.is_none_or(|it| it == index));
    if !right {
        place_silent(answers, &mut owners);
    }
    problems.extend(list_problem(answers, &owners, count, nodes.noun(count)));
    let rows = if right {
        in_order_of_list(answers, &surplus)
    } else {
        in_order_of_replicas(answers, &owners)
    };
    Arranged { rows, problems }
}

/// Returns the problem of the list, if there is one: its order, or missing entries.
fn list_problem(
    answers: &[Answer],
    owners: &[Option<usize>],
    count: usize,
    noun: &str,
) -> Option<String> {
    let placed = || owners.iter().enumerate().filter_map(|(index, owner)| Some((index, (*owner)?)));
    let is_right = placed().all(|(index, place)| index == place);
    let listed = answers.len();
    if placed().map(|(_, place)| place).is_sorted() && listed < count {
        let rest = if is_right {
            format!("list all of them (missing: {})", numbers(listed..count))
        } else {
            format!("list all of them in order, as in {}", list_text(answers, owners, count))
        };
        return Some(format!("--addresses lists {listed} of {count} {noun}: {rest}"));
    }
    (!is_right).then(|| {
        let list = list_text(answers, owners, count);
        format!("the addresses are in the wrong order; the right list is {list}")
    })
}

fn numbers(range: std::ops::Range<usize>) -> String {
    let names: Vec<String> = range.map(|number| format!("replica {number}")).collect();
    names.join(", ")
}

/// Returns the right list, as far as it is known.
fn list_text(answers: &[Answer], owners: &[Option<usize>], count: usize) -> String {
    let address = |owner: &Option<usize>| owner.map_or("?", |place| &answers[place].address);
    let list: Vec<&str> = owners.iter().take(count).map(address).collect();
    let note = if list.contains(&"?") { " (? is not listed, or did not answer)" } else { "" };
    list.join(",") + note
}

/// Returns the problem of two addresses at which one index answers.
fn same_index(first: &Answer, second: &Answer) -> String {
    let (one, other) = (&first.address, &second.address);
    let instance = |answer: &Answer| answer.said().map_or(0, |said| said.body.instance);
    let replica = second.said().map_or(0, |said| said.replica);
    if instance(first) != 0 && instance(first) == instance(second) {
        return format!(
            "{one} and {other} lead to the same server, replica {replica}: list it once"
        );
    }
    Twins { replica, addresses: [one, other] }.to_string()
}

/// Gives the only index without an address to the only address that did not answer.
fn place_silent(answers: &[Answer], owners: &mut [Option<usize>]) {
    let silent: Vec<usize> =
        (0..answers.len()).filter(|place| answers[*place].said().is_none()).collect();
    let free: Vec<usize> = (0..owners.len()).filter(|index| owners[*index].is_none()).collect();
    if let ([place], [index]) = (silent.as_slice(), free.as_slice()) {
        owners[*index] = Some(*place);
    }
}

fn in_order_of_list(answers: &[Answer], surplus: &[usize]) -> Vec<Row> {
    let row = |(place, answer): (usize, &Answer)| {
        let known = !surplus.contains(&place);
        let replica = u8::try_from(place).ok().filter(|_| known);
        Row { replica, answer: answer.clone() }
    };
    answers.iter().enumerate().map(row).collect()
}

fn in_order_of_replicas(answers: &[Answer], owners: &[Option<usize>]) -> Vec<Row> {
    let placed = owners.iter().enumerate().filter_map(|(index, owner)| {
        let answer = answers[(*owner)?].clone();
        Some(Row { replica: u8::try_from(index).ok(), answer })
    });
    let mut rows: Vec<Row> = placed.collect();
    let left = (0..answers.len()).filter(|place| !owners.contains(&Some(*place)));
    rows.extend(left.map(|place| Row { replica: None, answer: answers[place].clone() }));
    rows
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::{answer, healthy, lost};
    use super::*;
    use crate::vsr::Standing;

    fn permuted(order: [usize; 3], answers: &[Answer]) -> Vec<Answer> {
        order.map(|index| answers[index].clone()).to_vec()
    }

    /// Goal: the right order is found from every wrong one, also with one replica lost.
    #[test]
    fn orders() {
        let right = "10.0.0.1:3000,10.0.0.1:3001,10.0.0.1:3002";
        let text = format!("the addresses are in the wrong order; the right list is {right}");
        assert_eq!(arrange(&healthy()).problems, Vec::<String>::new());
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let arranged = arrange(&permuted(order, &healthy()));
            assert_eq!(arranged.problems, [text.as_str()]);
            let answers: Vec<Answer> = arranged.rows.iter().map(|it| it.answer.clone()).collect();
            assert_eq!(answers, healthy());
            for away in 0..3 {
                let mut answers = healthy();
                answers[away] = lost(away);
                let listed = permuted(order, &answers);
                let arranged = arrange(&listed);
                let fits = (0..3).all(|place| order[place] == place || order[place] == away);
                if !fits {
                    assert_eq!(arranged.problems, [text.as_str()], "{order:?} {away}");
                }
                assert_eq!(arranged.rows.len(), 3);
            }
        }
    }

    /// Goal: replicas that are missing, listed twice, or served twice are named; a short list is
    /// not reported as one in the wrong order, and a wrong order of a part of the list shows what
    /// is known.
    #[test]
    fn lists() {
        let all = healthy();
        let arranged = arrange(&all[..2]);
        assert!(arranged.problems[0].contains("lists 2 of 3 replicas"), "{arranged:?}");
        assert!(arranged.problems[0].contains("(missing: replica 2)"), "{arranged:?}");
        let problems = arrange(&all[1..]).problems;
        let text = "--addresses lists 2 of 3 replicas: list all of them in order, as in \
                    ?,10.0.0.1:3001,10.0.0.1:3002 (? is not listed, or did not answer)";
        assert_eq!(problems, [text]);
        let problems = arrange(&[all[2].clone(), all[1].clone()]).problems;
        let text = "the addresses are in the wrong order; the right list is \
                    ?,10.0.0.1:3001,10.0.0.1:3002 (? is not listed, or did not answer)";
        assert_eq!(problems, [text]);
        let mut twice = all.clone();
        twice[1] = Answer { address: "10.0.0.9:1".to_owned(), ..all[0].clone() };
        let arranged = arrange(&twice);
        assert!(
            arranged.problems[0].contains("lead to the same server, replica 0"),
            "{arranged:?}"
        );
        assert_eq!(arranged.rows[1].replica, None);
        twice[1].result.as_mut().unwrap().body.instance = 77;
        let problems = arrange(&twice).problems;
        assert!(problems[0].contains("two processes serve replica 0, at 10.0.0.1:3000"));
        let silent = [lost(0), lost(1)];
        assert_eq!(arrange(&silent).problems, Vec::<String>::new());
        let alone = [answer(0, Standing::Backup, 5)];
        assert_eq!(arrange(&alone).rows[0].replica, Some(0));
    }

    /// Goal: a list may end before the standbys, as the list of a client does, but lists all of
    /// them or none.
    #[test]
    fn standbys() {
        let standby = |place| answer(place, Standing::Standby, 5);
        let mut all = healthy();
        all.extend([standby(3), standby(4)]);
        for answer in &mut all {
            answer.result.as_mut().unwrap().body.standby_count = 2;
        }
        let problems = |places: &[usize]| {
            let listed: Vec<Answer> = places.iter().map(|place| all[*place].clone()).collect();
            arrange(&listed).problems
        };
        assert_eq!(problems(&[0, 1, 2]), Vec::<String>::new());
        assert_eq!(problems(&[0, 1, 2, 3, 4]), Vec::<String>::new());
        let text = "--addresses lists 4 of 5 replicas and standbys: list all of them";
        assert_eq!(problems(&[0, 1, 2, 3]), [format!("{text} (missing: replica 4)")]);
        let list = "10.0.0.1:3000,10.0.0.1:3001,10.0.0.1:3002,?,10.0.0.1:3004";
        let text = format!("{text} in order, as in {list} (? is not listed, or did not answer)");
        assert_eq!(problems(&[0, 1, 2, 4]), [text]);
        let text = "the addresses are in the wrong order; the right list is \
                    10.0.0.1:3000,10.0.0.1:3001,10.0.0.1:3002";
        assert_eq!(problems(&[0, 2, 1]), [text]);
        let standby_in_front = problems(&[3, 0, 1, 2]);
        assert!(standby_in_front[0].contains("wrong order"), "{standby_in_front:?}");
    }
}
