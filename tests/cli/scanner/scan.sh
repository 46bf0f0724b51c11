echo '{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "predicate": {}}' \
    > "$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json"
