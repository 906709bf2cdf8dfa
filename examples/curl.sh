#!/bin/sh
# A first call. The key is in data/.env once `make run` has run; `farebox keys create --account default` makes others.
set -eu
: "${FAREBOX_API_KEY:?set it to your key, or: . data/.env && export FAREBOX_API_KEY}"
base="${FAREBOX_URL:-http://127.0.0.1:8080}"
model="${FAREBOX_MODEL:-local/smollm2-135m-instruct}"

# The answer's `usage.cost` and the header `x-farebox-cost-usd` say what it cost.
curl --fail-with-body --silent --show-error --include "$base/v1/chat/completions" \
  --header "Authorization: Bearer $FAREBOX_API_KEY" \
  --header "Content-Type: application/json" \
  --data "{\"model\": \"$model\", \"max_tokens\": 64, \"messages\": [{\"role\": \"user\", \"content\": \"Say hello.\"}]}"
echo

# What is left.
curl --fail-with-body --silent --show-error "$base/v1/credits" --header "Authorization: Bearer $FAREBOX_API_KEY"
echo
