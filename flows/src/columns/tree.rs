//! The columns by the names of their fields; `geo.country` is the field `country` of the object `geo`, or a field of that whole name.

use super::json::{self, Text};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Names on one level.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: Vec<Node>,
    /// The node that the last object began with.
    first: AtomicUsize,
}

/// The columns of a name.
#[derive(Debug, Default)]
pub struct Node {
    name: String,
    /// The node that came after this one in the last object.
    next: AtomicUsize,
    /// The column that takes the field's value.
    column: Option<usize>,
    /// Columns that take fields of the value, where it is an object; or of each of its elements, where it is an array.
    below: Tree,
}

impl Tree {
    /// The columns by their numbers and names.
    pub fn new<'n>(columns: impl Iterator<Item = (usize, &'n str)>) -> Self {
        let mut tree = Self::default();
        for (column, name) in columns {
            tree.node(name).column = Some(column);
            let mut names = name.split('.');
            let (Some(first), true) = (names.next(), name.contains('.')) else { continue };
            let mut node = tree.node(first);
            for name in names {
                node = node.below.node(name);
            }
            node.column = Some(column);
        }
        tree
    }

    fn node(&mut self, name: &str) -> &mut Node {
        let at = self.nodes.iter().position(|node| node.name == name).unwrap_or_else(|| {
            self.nodes.push(Node { name: name.to_owned(), ..Node::default() });
            self.nodes.len() - 1
        });
        &mut self.nodes[at]
    }

    /// The node of a name. Objects have their fields in the same order, most of the time: so it is probably the one that came after
    /// `previous` in the last object.
    pub fn find(&self, previous: Option<&Node>, name: &str) -> Option<&Node> {
        let likely = previous.map_or(&self.first, |node| &node.next);
        if let Some(node) = self.nodes.get(likely.load(Relaxed)).filter(|node| node.name == name) {
            return Some(node);
        }
        let at = self.nodes.iter().position(|node| node.name == name)?;
        likely.store(at, Relaxed);
        Some(&self.nodes[at])
    }
}

/// Takes a field that no column takes: its name from the top, and its value if that can be kept as it is.
pub type Left<'l, 'a> = &'l mut dyn FnMut(Cow<'a, str>, Option<Text<'a>>);

impl Node {
    /// Puts the value of the field `name` where the columns find it, and tells what none of them takes.
    ///
    /// # Errors
    /// The name of a column that has a value already.
    pub fn collect<'a>(
        &self,
        name: Cow<'a, str>,
        value: Text<'a>,
        found: &mut [Option<Cow<'a, str>>],
        left: Left<'_, 'a>,
    ) -> Result<(), usize> {
        if let Some(column) = self.column {
            if found[column].replace(Cow::Borrowed(value)).is_some() {
                return Err(column);
            }
            if self.below.nodes.is_empty() {
                return Ok(());
            }
        }
        // A column of the whole value takes all that is in it.
        let is_taken = self.column.is_some();
        match value.as_bytes().first() {
            Some(b'{') => {
                let mut previous = None;
                for (inner, value) in json::fields(value).flatten() {
                    let path = || Cow::Owned(format!("{name}.{inner}"));
                    let node = self.below.find(previous, &inner);
                    previous = node.or(previous);
                    match node {
                        Some(node) if node.below.nodes.is_empty() => {
                            node.collect(Cow::Borrowed(""), value, found, left)?;
                        }
                        Some(node) => node.collect(path(), value, found, left)?,
                        None if is_taken => {}
                        None => left(path(), Some(value)),
                    }
                }
                Ok(())
            }
            Some(b'[') => {
                let mut unnamed = BTreeSet::new();
                self.gather(value, found, &mut unnamed)?;
                if !is_taken && !unnamed.is_empty() {
                    unnamed.into_iter().for_each(|inner| left(Cow::Owned(format!("{name}.{inner}")), None));
                    left(name, Some(value));
                }
                Ok(())
            }
            Some(b'n') => Ok(()),
            _ => {
                if !is_taken {
                    left(name, Some(value));
                }
                Ok(())
            }
        }
    }

    /// An array of objects: each column below takes the array of its field's values, with null where an element has none.
    fn gather<'a>(
        &self,
        array: Text<'a>,
        found: &mut [Option<Cow<'a, str>>],
        unnamed: &mut BTreeSet<String>,
    ) -> Result<(), usize> {
        let mut gathered: Vec<(usize, String)> = Vec::new();
        self.below.columns(&mut |column| gathered.push((column, String::from("["))));
        let mut element_found = vec![None; found.len()];
        for element in json::elements(array).flatten() {
            element_found.fill(None);
            let mut previous = None;
            // An element that is no object has no fields.
            for (name, value) in json::fields(element).flatten() {
                let node = self.below.find(previous, &name);
                previous = node.or(previous);
                match node {
                    Some(node) => node.collect(name, value, &mut element_found, &mut |inner, _| {
                        unnamed.insert(inner.into_owned());
                    })?,
                    None => drop(unnamed.insert(name.into_owned())),
                }
            }
            for (column, array) in &mut gathered {
                if array.len() > 1 {
                    array.push(',');
                }
                array.push_str(element_found[*column].as_deref().unwrap_or("null"));
            }
        }
        for (column, mut array) in gathered {
            array.push(']');
            if found[column].replace(Cow::Owned(array)).is_some() {
                return Err(column);
            }
        }
        Ok(())
    }

    fn columns(&self, each: &mut impl FnMut(usize)) {
        self.column.into_iter().for_each(&mut *each);
        self.below.columns(each);
    }
}

impl Tree {
    fn columns(&self, each: &mut impl FnMut(usize)) {
        self.nodes.iter().for_each(|node| node.columns(&mut *each));
    }
}
