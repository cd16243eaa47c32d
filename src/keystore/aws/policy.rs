//! The statements of an IAM policy that the credentials need.

use std::fmt;

use serde_json::json;

use super::config::{Endpoint, SecretsManager};

const ADD: &str = "add to the statements of their IAM policy";

/// Where secrets are.
#[derive(Debug)]
pub(super) struct Place {
    region: String,
    /// The address, unless it is that of the region.
    url: Option<String>,
}

impl Place {
    pub(super) fn new(config: &SecretsManager) -> Self {
        let url = match &config.endpoint {
            Endpoint::Url(url) => Some(url.to_string()),
            Endpoint::Region | Endpoint::Fips => None,
        };
        Self { region: config.region.clone(), url }
    }

    /// The same for every way to one place: an address in AWS is one of many for its region.
    pub(super) fn identity(&self) -> String {
        match self.url.as_deref().filter(|url| !url.contains(".amazonaws.com")) {
            Some(foreign) => format!("{foreign} {}", self.region),
            None => self.region.clone(),
        }
    }

    /// The first part of every ARN.
    fn partition(&self) -> &'static str {
        match self.region.split('-').next() {
            Some("cn") => "aws-cn",
            Some("us") if self.region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.url {
            Some(url) => write!(f, "{url}, region {}", self.region),
            None => write!(f, "region {}", self.region),
        }
    }
}

/// Builds the statements of an IAM policy.
pub(super) struct Rights<'a> {
    place: &'a Place,
    prefix: &'a str,
    kms_key: Option<&'a str>,
}

impl<'a> Rights<'a> {
    pub(super) fn new(place: &'a Place, prefix: &'a str, kms_key: Option<&'a str>) -> Self {
        Self { place, prefix, kms_key }
    }

    /// What to do when the right to `action` is missing, or the right to the KMS key.
    pub(super) fn missing(&self, action: &str, is_about_kms: bool) -> String {
        let statement = if is_about_kms { self.kms_statement() } else { self.statement(&[action]) };
        let doubt = match action {
            // The service has no ARN to compare with when there is no such secret.
            "GetSecretValue" if !is_about_kms => " (AWS may say so, too, of a secret that does not exist)",
            _ => "",
        };
        format!("{doubt}; {ADD}: {statement}")
    }

    /// What to do when the rights to these actions are missing.
    pub(super) fn missing_all(&self, actions: &[&str]) -> String {
        let names: Vec<_> = actions.iter().map(|action| format!("secretsmanager:{action}")).collect();
        format!("the credentials do not allow {}; {ADD}: {}", names.join(", "), self.statement(actions))
    }

    /// The statement that allows all these actions.
    fn statement(&self, actions: &[&str]) -> String {
        let (partition, region) = (self.place.partition(), &self.place.region);
        let secrets = format!("arn:{partition}:secretsmanager:{region}:*:secret:{}*", self.prefix);
        let allow = |actions: Vec<&str>, resource: &str| {
            let actions: Vec<_> = actions.iter().map(|action| format!("secretsmanager:{action}")).collect();
            json!({ "Effect": "Allow", "Action": actions, "Resource": resource }).to_string()
        };
        // Listing cannot be limited to some secrets.
        let (list, others): (Vec<_>, Vec<_>) = actions.iter().partition(|action| **action == "ListSecrets");
        let mut statements = Vec::new();
        if !others.is_empty() {
            statements.push(allow(others, &secrets));
        }
        if !list.is_empty() {
            statements.push(allow(list, "*"));
        }
        statements.join(", ")
    }

    fn kms_statement(&self) -> String {
        let (partition, region) = (self.place.partition(), &self.place.region);
        let key = match self.kms_key {
            Some(arn) if arn.starts_with("arn:") && arn.contains(":key/") => arn.to_owned(),
            // A policy cannot name a key by its alias.
            _ => format!("arn:{partition}:kms:{region}:*:key/*"),
        };
        let domain = if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
        json!({
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": key,
            "Condition": { "StringEquals": { "kms:ViaService": format!("secretsmanager.{region}.{domain}") } },
        })
        .to_string()
    }
}
