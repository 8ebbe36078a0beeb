//! What EXPOSE takes: `[[address:][host port]:]port[-port][/protocol]`.

/// The ports that one word names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Exposed {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Whether the protocol has capitals.
    pub odd_case: bool,
    /// Whether an address or a port of the host is named.
    pub has_host: bool,
}

impl Exposed {
    /// Returns `port/protocol` for each port: up to 65,535 of them.
    pub(super) fn list(&self) -> impl Iterator<Item = String> {
        (self.first..=self.last).map(|port| format!("{port}/{}", self.protocol))
    }
}

/// Understands one word; the error is for people.
pub(super) fn parse(spec: &str) -> Result<Exposed, String> {
    let (host, container) = spec.rsplit_once(':').map_or(("", spec), |(h, c)| (h, c));
    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    if range.is_empty() {
        return Err(format!("`{spec}` names no port"));
    }
    let lower = protocol.to_ascii_lowercase();
    if !["", "tcp", "udp", "sctp"].contains(&lower.as_str()) {
        return Err(format!(
            "`{protocol}` is not a protocol: there are `tcp`, `udp` and `sctp`"
        ));
    }
    let (first, last) =
        ports(range).ok_or_else(|| format!("`{range}` is not a port or a range of ports"))?;
    host_part(host, last - first).map_err(|why| format!("`{spec}`: {why}"))?;
    let (odd_case, has_host) = (protocol != lower, !host.trim_matches(':').is_empty());
    let protocol = if lower.is_empty() {
        "tcp".to_owned()
    } else {
        lower
    };
    Ok(Exposed {
        first,
        last,
        protocol,
        odd_case,
        has_host,
    })
}

/// Reads `80` or `80-90`.
fn ports(text: &str) -> Option<(u16, u16)> {
    // A leading `+` is part of a number for Go, and for Rust.
    let number = |text: &str| text.parse::<u16>().ok();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// Checks what stands before the container's port; `more` is how many ports follow its first.
fn host_part(text: &str, more: u16) -> Result<(), String> {
    let (address, port) = text.rsplit_once(':').unwrap_or(("", text));
    if !port.is_empty() {
        let (first, last) =
            ports(port).ok_or_else(|| format!("`{port}` is not a port of the host"))?;
        if last - first != more && more != 0 {
            return Err(format!(
                "the range `{port}` has another length than the container's"
            ));
        }
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'))
        .unwrap_or(address);
    match bare.is_empty() || bare.parse::<core::net::IpAddr>().is_ok() {
        true => Ok(()),
        false => Err(format!("`{address}` is not an address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        for (spec, want) in [
            ("80", Ok("80/tcp")),
            ("80/udp", Ok("80/udp")),
            ("80/TCP", Ok("80/tcp odd")),
            ("80-82/sctp", Ok("80/sctp 81/sctp 82/sctp")),
            ("8080:80", Ok("80/tcp host")),
            ("127.0.0.1:8080:80/udp", Ok("80/udp host")),
            ("127.0.0.1::80", Ok("80/tcp host")),
            ("[::1]:8080:80", Ok("80/tcp host")),
            ("8080-8081:80-81", Ok("80/tcp 81/tcp host")),
            ("8080-8089:80", Ok("80/tcp host")),
            ("", Err("`` names no port")),
            ("/tcp", Err("`/tcp` names no port")),
            (
                "80/icmp",
                Err("`icmp` is not a protocol: there are `tcp`, `udp` and `sctp`"),
            ),
            ("x", Err("`x` is not a port or a range of ports")),
            ("65536", Err("`65536` is not a port or a range of ports")),
            ("+80", Ok("80/tcp")),
            (":80", Ok("80/tcp")),
            ("80-80", Ok("80/tcp")),
            ("80-", Err("`80-` is not a port or a range of ports")),
            ("82-80", Err("`82-80` is not a port or a range of ports")),
            ("1-2-3", Err("`1-2-3` is not a port or a range of ports")),
            ("x:80", Err("`x:80`: `x` is not a port of the host")),
            (
                "8080-8082:80-81",
                Err(
                    "`8080-8082:80-81`: the range `8080-8082` has another length than the container's",
                ),
            ),
            ("1.2.3:1:80", Err("`1.2.3:1:80`: `1.2.3` is not an address")),
        ] {
            let got = parse(spec).map(|e| {
                format!(
                    "{}{}{}",
                    e.list().collect::<Vec<_>>().join(" "),
                    if e.odd_case { " odd" } else { "" },
                    if e.has_host { " host" } else { "" }
                )
            });
            assert_eq!(
                got,
                want.map(str::to_owned).map_err(str::to_owned),
                "{spec}"
            );
        }
    }
}
