use orrery_protocol::Claims;

/// The headers of an envelope on the bus: CloudEvents 1.0 in Kafka's binary mode. The key is the device id.
pub fn cloudevents(claims: &Claims) -> Vec<(String, String)> {
    let header = |name: &str, value: String| (name.to_owned(), value);
    vec![
        header("ce_specversion", "1.0".to_owned()),
        // Unique within the source, as CloudEvents asks, and the same for every copy of the envelope.
        header("ce_id", format!("{}/{}", claims.boot_id, claims.sequence)),
        header("ce_source", format!("/devices/{}", claims.device_id)),
        header("ce_type", format!("orrery.{}", claims.payload_type.as_str())),
        header("ce_time", claims.timestamp.to_rfc3339()),
        header("content-type", "application/cose; cose-type=\"cose-sign1\"".to_owned()),
    ]
}
