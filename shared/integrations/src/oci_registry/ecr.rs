//! Amazon ECR, for whoever has a role there: a password for half a day instead of one that is kept.
//!
//! <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html>

use attestation::Digest;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::reference::Repository;
use crate::caller::{Purpose, sign};
use crate::{Error, Http, Kind, RoleArn, SecretText};

/// Actions that a push asks for, and what it reads to find out what is there.
const ACTIONS: [&str; 8] = [
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:DescribeImages",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
];

/// A private registry of ECR: `111122223333.dkr.ecr.eu-central-1.amazonaws.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    account: String,
    region: String,
    /// By the endpoints that FIPS 140 asks for.
    is_fips: bool,
}

impl Registry {
    /// Reads a registry's host; none if it is not ECR's. Nothing else of it may become part of a host that is asked.
    pub fn of(host: &str) -> Option<Self> {
        let host = host.strip_suffix(":443").unwrap_or(host);
        let (account, rest) = host.split_once(".dkr.")?;
        let (service, rest) = rest.split_once('.')?;
        let (region, suffix) = rest.split_once('.')?;
        let is_china = region.starts_with("cn-");
        let fits = account.len() == 12
            && account.bytes().all(|b| b.is_ascii_digit())
            && !region.is_empty()
            && region
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && suffix
                == if is_china {
                    "amazonaws.com.cn"
                } else {
                    "amazonaws.com"
                };
        let is_fips = match service {
            "ecr" => false,
            "ecr-fips" => true,
            _ => return None,
        };
        fits.then(|| Self {
            account: account.to_owned(),
            region: region.to_owned(),
            is_fips,
        })
    }

    /// All that a session may do.
    fn policy(&self, role: &RoleArn, repository: &Repository) -> Value {
        let (partition, region, account) = (role.partition(), &self.region, &self.account);
        let path = repository.path();
        json!({
            "Version": "2012-10-17",
            "Statement": [
                { "Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*" },
                {
                    "Effect": "Allow", "Action": ACTIONS,
                    "Resource": format!("arn:{partition}:ecr:{region}:{account}:repository/{path}"),
                },
            ],
        })
    }

    pub fn purpose(
        &self,
        http: &Http,
        role: &RoleArn,
        repository: &Repository,
    ) -> Result<Purpose, Error> {
        http.purpose(role, &self.policy(role, repository))
    }

    /// Where its API is asked; the registry itself is asked where its host is, but in local mode.
    fn base(&self, http: &Http) -> Result<String, Error> {
        let service = if self.is_fips { "ecr-fips" } else { "api.ecr" };
        Ok(http.caller()?.base(service, &self.region))
    }

    /// Returns `user:password` for the registry, kept for nearly as long as it is good for.
    pub async fn password(&self, http: &Http, purpose: &Purpose) -> Result<SecretText, Error> {
        let tokens = http.tokens()?;
        if let Some(token) = tokens.get(purpose, http.unix_secs()) {
            return Ok(token);
        }
        let key = http.assume(purpose).await?;
        let doing = format!("get a token of ECR in {} as {}", self.region, purpose.role);
        let request = self.request(http)?;
        let digest = Digest::of(request.body());
        let request = sign(request, &digest, &key, "ecr", &self.region)?;
        let sent = http.send(request).await;
        let response = sent.map_err(|error| Error {
            text: format!("{doing}: {}", error.text),
            ..error
        })?;
        if response.status != StatusCode::OK {
            let refusal: Refusal = serde_json::from_slice(&response.body).unwrap_or_default();
            let mut error = response
                .check(&doing, http.unix_secs())
                .err()
                .unwrap_or_else(|| {
                    Error::permanent(format!("{doing}: answered {}", response.status.as_u16()))
                });
            if refusal.kind.ends_with("ExpiredTokenException")
                || refusal.kind.ends_with("UnrecognizedClientException")
            {
                http.forget(purpose);
                error.kind = Kind::Unauthorized;
            }
            if refusal.kind.ends_with("ThrottlingException") {
                error.kind = Kind::Retryable { after: None };
            }
            let shown = response.excerpt(refusal.message.as_bytes());
            if !shown.is_empty() {
                error.text = format!("{}: {shown}", error.text);
            }
            return Err(error);
        }
        let (token, expires_at) = read(&response.body)
            .ok_or_else(|| Error::permanent(format!("{doing}: the answer has none")))?;
        tokens.put(purpose.clone(), token.clone(), expires_at);
        Ok(token)
    }

    /// The POST as it goes out, but for the signature.
    fn request(&self, http: &Http) -> Result<Request<Bytes>, Error> {
        Request::post(format!("{}/", self.base(http)?))
            .header(CONTENT_TYPE, "application/x-amz-json-1.1")
            .header(
                "x-amz-target",
                "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
            )
            .body(Bytes::from_static(b"{}"))
            .map_err(|error| Error::permanent("build the request to ECR").source(error))
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "authorizationData")]
    data: Vec<Authorization>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    authorization_token: String,
    /// Seconds since 1970.
    expires_at: f64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    #[serde(rename = "__type")]
    kind: String,
    message: String,
}

/// The `user:password` in an answer, and when it ends.
fn read(body: &[u8]) -> Option<(SecretText, u64)> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let data = answer.data.into_iter().next()?;
    let decoded = base64_simd::STANDARD
        .decode_to_vec(data.authorization_token)
        .ok()?;
    let token = String::from_utf8(decoded).ok()?;
    let is_login = token
        .split_once(':')
        .is_some_and(|(user, password)| user == "AWS" && !password.is_empty());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time, and what is none ends at once"
    )]
    is_login.then(|| (token.into(), data.expires_at as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_of_ecr_is_known_by_its_whole_host() {
        let region = |host: &str| Registry::of(host).map(|registry| registry.region);
        for (host, expected) in [
            (
                "111122223333.dkr.ecr.eu-central-1.amazonaws.com",
                Some("eu-central-1"),
            ),
            (
                "111122223333.dkr.ecr.eu-central-1.amazonaws.com:443",
                Some("eu-central-1"),
            ),
            (
                "111122223333.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                Some("us-gov-west-1"),
            ),
            (
                "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn",
                Some("cn-north-1"),
            ),
            ("111122223333.dkr.ecr.cn-north-1.amazonaws.com", None),
            ("111122223333.dkr.ecr.eu-central-1.amazonaws.com.cn", None),
            (
                "111122223333.dkr.ecr.eu-central-1.amazonaws.com.evil.example",
                None,
            ),
            ("111122223333.dkr.ecr.eu-central-1.amazonaws.com:8443", None),
            ("evil.example.dkr.ecr.eu-central-1.amazonaws.com", None),
            ("111122223333.dkr.ecr.a.b.amazonaws.com", None),
            ("111122223333.dkr.ecr..amazonaws.com", None),
            ("111122223333.dkr.ecr-evil.eu-central-1.amazonaws.com", None),
            ("public.ecr.aws", None),
            ("ghcr.io", None),
        ] {
            assert_eq!(region(host).as_deref(), expected, "{host}");
        }
    }

    #[test]
    fn an_answer_without_a_login_is_none() {
        let answer = |token: &str| {
            let token = base64_simd::STANDARD.encode_to_string(token);
            let data = json!([{ "authorizationToken": token, "expiresAt": 1_767_366_000.5 }]);
            json!({ "authorizationData": data }).to_string()
        };
        let (token, expires_at) = read(answer("AWS:password").as_bytes()).unwrap();
        assert_eq!(
            (token.expose(), expires_at),
            ("AWS:password", 1_767_366_000)
        );
        for other in ["", "AWS", "AWS:", "root:password"] {
            assert!(read(answer(other).as_bytes()).is_none(), "{other}");
        }
        assert!(read(br#"{"authorizationData":[]}"#).is_none());
    }
}
