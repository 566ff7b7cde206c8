-- Runs in Envoy on every request and on every failed response. Triton's JSON parser recurses, so nesting deep enough
-- ends the whole process; it answers nonsense with 500 and takes an empty body for an empty text. Here a request that
-- can't be right is refused with a 4xx that says why, before Triton sees it.

local MAX_DEPTH = 64

local BACKSLASH, QUOTE = 92, 34
local OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET = 123, 125, 91, 93

-- Whether the JSON in `text` nests deeper than MAX_DEPTH. Brackets inside strings don't count.
local function nests_too_deep(text)
  local byte, find = string.byte, string.find
  local depth, at, length = 0, 1, #text
  while at <= length do
    local c = byte(text, at)
    if c == OPEN_BRACE or c == OPEN_BRACKET then
      depth = depth + 1
      if depth > MAX_DEPTH then
        return true
      end
    elseif c == CLOSE_BRACE or c == CLOSE_BRACKET then
      depth = depth - 1
    elseif c == QUOTE then
      repeat
        at = find(text, '["\\]', at + 1)
        if at == nil then
          return false
        end
        local stop = byte(text, at) == QUOTE
        if byte(text, at) == BACKSLASH then
          at = at + 1
        end
      until stop
    end
    at = at + 1
  end
  return false
end

-- The guards return the status and the reason of a refusal, or nothing.

local function guard_grpc(handle)
  local encoding = handle:headers():get("grpc-encoding")
  if encoding ~= nil and encoding ~= "identity" then
    -- A megabyte of gzip can be a gigabyte of text.
    return "415", "grpc-encoding '" .. encoding .. "' is not accepted; send messages uncompressed"
  end
end

local function guard_json(handle)
  if handle:headers():get("content-encoding") ~= nil then
    return "415", "a compressed body is not accepted; send it without Content-Encoding"
  end
  local given = handle:headers():get("inference-header-content-length")
  local body = handle:body(true)
  local length = body:length()
  if length == 0 then
    return "400", "the body is empty; send a JSON object with 'inputs'"
  end
  -- A binary-tensor request is JSON followed by bytes; this header says where the JSON ends.
  local json_length = length
  if given ~= nil then
    json_length = string.match(given, "^%d+$") and tonumber(given) or 0
    if json_length < 1 or json_length > length then
      return "400", "Inference-Header-Content-Length must be the length of the JSON that starts the body: 1 to " .. length
    end
  end
  local text = body:getBytes(0, json_length)
  if not string.find(text, "^%s*{") then
    return "400", "the body is not JSON; send an object with 'inputs'"
  end
  if nests_too_deep(text) then
    return "400", "the body is nested deeper than " .. MAX_DEPTH .. " levels"
  end
end

function envoy_on_request(handle)
  local guard
  if string.find(handle:headers():get("content-type") or "", "^application/grpc") then
    guard = guard_grpc
  elseif handle:headers():get(":method") == "POST" then
    guard = guard_json
  else
    return
  end
  -- Envoy lets a request pass whose script failed; this one is refused.
  local ran, status, reason = pcall(guard, handle)
  if not ran then
    handle:logErr(status)
    status, reason = "500", "the request could not be checked"
  end
  if status ~= nil then
    handle:respond({ [":status"] = status }, reason)
  end
end

-- Triton calls every request that it can't parse, and every dead model process, an internal error, and some of its
-- JSON plain text.
function envoy_on_response(handle)
  local headers = handle:headers()
  local status = headers:get(":status")
  if tonumber(status) < 400 then
    return
  end
  if headers:get("content-type") == "text/plain" then
    headers:replace("content-type", "application/json")
  end
  if status ~= "500" then
    return
  end
  local body = handle:body(true)
  local text = body:getBytes(0, math.min(body:length(), 4096))
  -- The headers object doesn't outlive the wait for the body.
  if string.find(text, "parse", 1, true) then
    handle:headers():replace(":status", "400")
  elseif string.find(text, "Stub process", 1, true) then
    handle:headers():replace(":status", "503")
  end
end
