//! Access control lists: what a user may do, granted and taken away through Kafka's own protocol. Its command line tool would
//! start a virtual machine for each.

use std::io::{Read, Write};
use std::net::TcpStream;

/// The object of a right.
#[derive(Clone, Copy, Debug)]
pub enum On<'a> {
    Topic(&'a str),
    Group(&'a str),
    Cluster,
    TransactionalId(&'a str),
}

/// A broker that takes this from anybody.
pub struct Acls {
    pub address: String,
}

/// Keys and versions of the requests; both versions are the oldest that Kafka 4 takes.
const CREATE_ACLS: [i16; 2] = [30, 1];
const DELETE_ACLS: [i16; 2] = [31, 1];
const LITERAL: u8 = 3;
const ALLOW: u8 = 3;

impl Acls {
    /// Lets a user do this.
    pub fn grant(&self, user: &str, operation: &str, on: On<'_>) {
        self.send(CREATE_ACLS, user, operation, on);
    }

    /// The user may do this no longer.
    pub fn revoke(&self, user: &str, operation: &str, on: On<'_>) {
        self.send(DELETE_ACLS, user, operation, on);
    }

    /// One access control list: to create it, and as a filter that matches nothing else, it has the same fields.
    fn send(&self, [key, version]: [i16; 2], user: &str, operation: &str, on: On<'_>) {
        let mut request = Vec::new();
        request.extend(key.to_be_bytes());
        request.extend(version.to_be_bytes());
        request.extend([0; 4]); // the request's number
        text(&mut request, "test");
        request.extend(1_i32.to_be_bytes()); // of them
        let (kind, name) = match on {
            On::Topic(name) => (2, name),
            On::Group(name) => (3, name),
            On::Cluster => (4, "kafka-cluster"),
            On::TransactionalId(name) => (5, name),
        };
        request.push(kind);
        text(&mut request, name);
        request.push(LITERAL);
        text(&mut request, &format!("User:{user}"));
        text(&mut request, "*"); // from any host
        request.extend([code(operation), ALLOW]);

        let mut broker = TcpStream::connect(&self.address).expect("the broker listens");
        broker.write_all(&(request.len() as i32).to_be_bytes()).expect("the broker reads");
        broker.write_all(&request).expect("the broker reads");
        let mut length = [0; 4];
        broker.read_exact(&mut length).expect("the broker answers");
        let mut answer = vec![0; i32::from_be_bytes(length) as usize];
        broker.read_exact(&mut answer).expect("the broker answers");
        // The request's number, a throttle time, how many results, and the first one's error.
        let error = i16::from_be_bytes([answer[12], answer[13]]);
        assert_eq!(error, 0, "{operation} on {on:?}");
    }
}

fn text(request: &mut Vec<u8>, text: &str) {
    request.extend((text.len() as i16).to_be_bytes());
    request.extend(text.as_bytes());
}

fn code(operation: &str) -> u8 {
    let codes = ["READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE"];
    3 + codes.iter().position(|code| *code == operation).expect("an operation of Kafka") as u8
}
