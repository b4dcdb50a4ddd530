//! The columns by the names of their fields; `geo.country` is the field `country` of the object `geo`, or a field of that whole name.

use super::json::{self, Text};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Names on one level.
#[derive(Debug, Default)]
pub struct Tree(Vec<(String, Node)>);

/// The columns of a name.
#[derive(Debug, Default)]
pub struct Node {
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
        let at = self.0.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.0.push((name.to_owned(), Node::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// The node of a name, which is probably the `nth`: messages have their fields in the same order, most of the time.
    pub fn find(&self, nth: usize, name: &str) -> Option<&Node> {
        let likely = self.0.get(nth).filter(|(known, _)| known == name);
        let found = likely.or_else(|| self.0.iter().find(|(known, _)| known == name));
        found.map(|(_, node)| node)
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
            if self.below.0.is_empty() {
                return Ok(());
            }
        }
        // A column of the whole value takes all that is in it.
        let is_taken = self.column.is_some();
        match value.as_bytes().first() {
            Some(b'{') => {
                let walked = json::fields(value, |(inner, value)| {
                    let path = || Cow::Owned(format!("{name}.{inner}"));
                    match self.below.find(usize::MAX, &inner) {
                        Some(node) if node.below.0.is_empty() => node.collect(Cow::Borrowed(""), value, found, left),
                        Some(node) => node.collect(path(), value, found, left),
                        None => {
                            if !is_taken {
                                left(path(), Some(value));
                            }
                            Ok(())
                        }
                    }
                });
                walked.unwrap_or(Ok(()))
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
        let walked = json::elements(array, |element| {
            element_found.fill(None);
            if element.starts_with('{') {
                json::fields(element, |(name, value)| match self.below.find(usize::MAX, &name) {
                    Some(node) => node.collect(name, value, &mut element_found, &mut |inner, _| {
                        unnamed.insert(inner.into_owned());
                    }),
                    None => {
                        unnamed.insert(name.into_owned());
                        Ok(())
                    }
                })
                .unwrap_or(Ok(()))?;
            }
            for (column, array) in &mut gathered {
                if array.len() > 1 {
                    array.push(',');
                }
                array.push_str(element_found[*column].as_deref().unwrap_or("null"));
            }
            Ok::<(), usize>(())
        });
        walked.unwrap_or(Ok(()))?;
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
        self.0.iter().for_each(|(_, node)| node.columns(&mut *each));
    }
}
