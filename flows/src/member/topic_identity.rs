//! Which topic a committed offset is of: this one, one that was deleted, one of another cluster, or none that can be told.

use super::{Metadata, Notes, Ours};

/// A topic of a cluster. A topic that was deleted and created again has the same name, and another id.
#[derive(Clone, Debug)]
pub struct TopicIdentity {
    /// Its name.
    pub name: String,
    /// Its id; none where the brokers have no ids of topics.
    pub id: Option<String>,
    /// The id of its cluster; none where the brokers have none.
    pub cluster: Option<String>,
}

/// Where a committed offset comes from, by its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This topic: the notes are about it.
    Here(Notes),
    /// A topic of this name that was deleted.
    MadeAgain,
    /// The topic of another cluster, from which the offset was translated (MirrorMaker, cluster linking).
    OtherCluster(String),
    /// Another client has committed it: the offset counts.
    Foreign,
}

impl Origin {
    /// The notes about this topic.
    pub fn notes(self) -> Notes {
        match self {
            Self::Here(notes) => notes,
            _ => Notes::default(),
        }
    }
}

impl TopicIdentity {
    /// The `_source` of its rows: the id, or the name if the broker has no ids.
    pub fn source(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.name)
    }

    /// Where an offset that is committed for this topic's name comes from.
    pub fn origin(&self, metadata: &str) -> Origin {
        let Metadata::Ours(Ours { cluster, topic, notes }) = Metadata::read(metadata) else { return Origin::Foreign };
        match (&self.id, cluster) {
            // Also in a cluster that was given another id: no two topics have one.
            (Some(id), _) if *id == topic => Origin::Here(notes),
            (_, Some(other)) if self.cluster.as_ref().is_some_and(|mine| *mine != other) => Origin::OtherCluster(other),
            // Only an id tells a topic from a later one of its name. Brokers that had none when it was committed may have
            // been upgraded since.
            (Some(_), _) if topic != self.name => Origin::MadeAgain,
            _ => Origin::Here(notes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "Xz9hvwy5QoOjQVYvwoGRQw";
    const OTHER: &str = "2mHSbDoPSYypPRIhQb1s9A";

    fn topic(id: Option<&str>, cluster: Option<&str>) -> TopicIdentity {
        let [id, cluster] = [id, cluster].map(|id| id.map(str::to_owned));
        TopicIdentity { name: "clicks".into(), id, cluster }
    }

    fn here() -> Origin {
        Origin::Here(Notes { read: Some(7), ..Notes::default() })
    }

    #[test]
    fn an_offset_of_this_topic_is_known_by_the_topics_id() {
        for text in [
            format!("clickstream/1;cluster=c;topic={ID};read=7"),
            format!("clickstream/1;topic={ID};read=7"),
            // A cluster that was restored under another id still has the topic.
            format!("clickstream/1;cluster=d;topic={ID};read=7"),
            format!("{ID};read=7"),
        ] {
            for cluster in [Some("c"), None] {
                assert_eq!(topic(Some(ID), cluster).origin(&text), here(), "{text}, {cluster:?}");
            }
        }
    }

    #[test]
    fn only_metadata_of_ours_and_of_this_cluster_says_that_the_topic_was_made_again() {
        let here = topic(Some(ID), Some("c"));
        for text in [
            format!("clickstream/1;cluster=c;topic={OTHER};read=7"),
            format!("clickstream/1;topic={OTHER};read=7"),
            format!("{OTHER};read=7"),
        ] {
            assert_eq!(here.origin(&text), Origin::MadeAgain, "{text}");
        }
        for text in ["", "x", "made-by=somebody", "clickstream", &format!("{OTHER};made=elsewhere")] {
            assert_eq!(here.origin(text), Origin::Foreign, "{text}");
        }
        let translated = here.origin(&format!("clickstream/1;cluster=d;topic={OTHER};read=7"));
        assert_eq!(translated, Origin::OtherCluster("d".into()));
    }

    #[test]
    fn a_broker_without_ids_of_topics_tells_clusters_apart_and_nothing_else() {
        let nameless = topic(None, Some("c"));
        for text in ["clickstream/1;cluster=c;topic=clicks;read=7", &format!("clickstream/1;topic={ID};read=7")] {
            assert_eq!(nameless.origin(text), here(), "{text}");
        }
        let translated = nameless.origin("clickstream/1;cluster=d;topic=clicks;read=7");
        assert_eq!(translated, Origin::OtherCluster("d".into()));
        // Since then, it was upgraded.
        assert_eq!(topic(Some(ID), Some("c")).origin("clickstream/1;cluster=c;topic=clicks;read=7"), here());
    }
}
