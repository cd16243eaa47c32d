//! The metadata of an EC2 instance, as its documentation says: there is no server of it to be had.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/";

/// Answers, until the tests end, as an instance whose role has these credentials; returns where.
pub fn serve(credentials: String) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let _ = connection.and_then(|connection| answer(connection, &credentials));
        }
    });
    address
}

fn answer(mut connection: TcpStream, credentials: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut has_token = false;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        has_token |= line == "x-aws-ec2-metadata-token: of-this-instance";
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match target.strip_prefix(CREDENTIALS) {
        None if request.starts_with("PUT /latest/api/token ") => ("200 OK", "of-this-instance"),
        Some(_) if !has_token => ("401 Unauthorized", ""),
        Some("") => ("200 OK", "server"),
        Some("server") => ("200 OK", credentials),
        _ => ("404 Not Found", ""),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    write!(connection, "{head}x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\r\n{body}")
}
