//! The real curl.

use std::process::Command;

use super::certs;
use super::peer::program;

/// What curl was told by the server.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// `1.1` or `2`.
    pub http: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON, not {:?}", self.body))
    }
}

/// Runs curl with the development CA; an error is what curl says when there is no answer.
pub fn curl(args: &[&str]) -> Result<Answer, String> {
    let output = Command::new(program("curl", "curl"))
        .args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"])
        .args(["--write-out", "\n%{http_code} %{http_version}", "--cacert"])
        .arg(certs("ca.crt"))
        .args(args)
        .output()
        .expect("curl runs");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, last) = text.rsplit_once('\n').expect("the line that was asked for");
    let (status, http) = last.split_once(' ').expect("two words");
    Ok(Answer { status: status.parse().expect("a number"), http: http.into(), body: body.into() })
}

/// Runs curl as a client of `certs/`.
pub fn curl_as(client: &str, args: &[&str]) -> Result<Answer, String> {
    let (certificate, key) = (certs(format!("{client}.crt")), certs(format!("{client}.key")));
    let identity = ["--cert", certificate.to_str().expect("UTF-8"), "--key", key.to_str().expect("UTF-8")];
    curl(&[&identity, args].concat())
}
