//! The portal: pages for people, clients of the API like any other. They are in the program itself,
//! and the browser is told to run nothing else.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use ringback_core::account::hex;
use sha2::{Digest, Sha256};

/// Nothing inline, nothing from elsewhere, and in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; \
                      base-uri 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
/// Code that is shown, not run.
const TEXT: &str = "text/plain; charset=utf-8";

/// One file of the pages.
struct Asset {
    path: &'static str,
    media: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($path:literal $media:ident,)+) => {
        &[$(Asset {
            path: $path,
            media: $media,
            bytes: include_bytes!(concat!("../portal/", $path)),
        },)+]
    };
}

/// Every file; a test compares this with the directory.
const ASSETS: &[Asset] = assets! {
    "index.html" HTML,
    "base.css" STYLE,
    "parts.css" STYLE,
    "icon.svg" IMAGE,
    "guide/verify.py" TEXT,
    "guide/verify.mjs" TEXT,
    "guide/verify.php" TEXT,
    "guide/verify.go" TEXT,
    "js/api.js" SCRIPT,
    "js/attempt.js" SCRIPT,
    "js/authentication.js" SCRIPT,
    "js/change.js" SCRIPT,
    "js/charts.js" SCRIPT,
    "js/company.js" SCRIPT,
    "js/dom.js" SCRIPT,
    "js/form.js" SCRIPT,
    "js/format.js" SCRIPT,
    "js/health.js" SCRIPT,
    "js/log.js" SCRIPT,
    "js/main.js" SCRIPT,
    "js/parked.js" SCRIPT,
    "js/routes.js" SCRIPT,
    "js/settings.js" SCRIPT,
    "js/signing.js" SCRIPT,
    "js/test-send.js" SCRIPT,
    "js/ui.js" SCRIPT,
    "js/pages/accounts.js" SCRIPT,
    "js/pages/changes.js" SCRIPT,
    "js/pages/event-url.js" SCRIPT,
    "js/pages/event.js" SCRIPT,
    "js/pages/guide.js" SCRIPT,
    "js/pages/me.js" SCRIPT,
    "js/pages/new-webhook.js" SCRIPT,
    "js/pages/notices.js" SCRIPT,
    "js/pages/operations.js" SCRIPT,
    "js/pages/personal-data.js" SCRIPT,
    "js/pages/sign-in.js" SCRIPT,
    "js/pages/tenants.js" SCRIPT,
    "js/pages/tokens.js" SCRIPT,
    "js/pages/webhook.js" SCRIPT,
};

/// The pages; whatever else is asked for is the API's.
pub(crate) fn router(api: Router) -> Router {
    let index = || async { Redirect::permanent("/portal/") };
    let pages = Router::new()
        .route("/", get(index))
        .route("/portal", get(index))
        .route(
            "/portal/",
            get(async |headers: HeaderMap| answer("", &headers)),
        )
        .route(
            "/portal/{*path}",
            get(async |Path(path): Path<String>, headers: HeaderMap| answer(&path, &headers)),
        )
        .layer(map_response(protect));
    pages.fallback_service(api)
}

/// A file, or the one page for every path that is no file: its script looks at the path.
fn answer(path: &str, headers: &HeaderMap) -> Response {
    let of_files = path.starts_with("js/") || path.starts_with("guide/");
    let wanted = |asset: &&Asset| match of_files {
        true => asset.path == path,
        false => asset.path == path || asset.media == HTML,
    };
    // The page is the last resort, so whatever has the path comes first.
    let found = ASSETS
        .iter()
        .filter(wanted)
        .max_by_key(|asset| asset.path == path);
    let Some(asset) = found else {
        let text = "there is no such page; the first is /portal/\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    let tag = format!("\"{}\"", &hex(&Sha256::digest(asset.bytes))[..32]);
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    let known = known.filter_map(|value| value.to_str().ok());
    let is_known = known
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    // Asked for each time and answered 304: after an upgrade no old file meets a new one.
    let common = [
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::ETAG, tag),
    ];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, common).into_response(),
        false => (common, [(header::CONTENT_TYPE, asset.media)], asset.bytes).into_response(),
    }
}

/// What browsers are told with every answer.
async fn protect(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 5] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path as FilePath, PathBuf};

    use super::*;

    fn files(dir: &FilePath, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files(&path, into),
                false => into.push(path),
            }
        }
    }

    /// What a browser would ask for and not get would be seen only when somebody opens that page.
    #[test]
    fn every_file_is_served() {
        let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("portal");
        let mut found = Vec::new();
        files(&root, &mut found);
        let name = |path: &PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
        let found: BTreeSet<_> = found.iter().map(name).collect();
        let served: BTreeSet<_> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(found, served);
    }

    #[test]
    fn nothing_is_inline_and_no_text_becomes_markup() {
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            let forbidden: &[&str] = match asset.media {
                HTML => &["<style", " style=", " onclick=", "<script>"],
                SCRIPT => &[
                    "innerHTML",
                    "outerHTML",
                    "insertAdjacentHTML",
                    "document.write",
                    "eval(",
                    "new Function",
                    "DOMParser",
                ],
                STYLE => &["@import", "url("],
                _ => &[],
            };
            for word in forbidden {
                assert!(!text.contains(word), "{} has {word}", asset.path);
            }
        }
    }

    fn status(path: &str, tag: Option<&HeaderValue>) -> Response {
        let tag = tag.map(|tag| (header::IF_NONE_MATCH, tag.clone()));
        answer(path, &HeaderMap::from_iter(tag))
    }

    #[test]
    fn what_is_known_is_not_sent_again_and_unknown_files_are_not_there() {
        for asset in ASSETS {
            let first = status(asset.path, None);
            assert_eq!(first.status(), StatusCode::OK);
            assert_eq!(first.headers()[header::CONTENT_TYPE], asset.media);
            let tag = &first.headers()[header::ETAG];
            let again = status(asset.path, Some(tag));
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{}", asset.path);
        }
        for page in ["", "sign-in", "tenants/acme.de/webhooks/a.b.js"] {
            let page = status(page, None);
            assert_eq!(page.headers()[header::CONTENT_TYPE], HTML);
        }
        for missing in ["js/gone.js", "guide/", "js/../index.html"] {
            assert_eq!(status(missing, None).status(), StatusCode::NOT_FOUND);
        }
    }
}
