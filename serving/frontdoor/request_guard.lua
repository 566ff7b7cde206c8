-- Runs in Envoy on every request whose body is there, and on every failed response. Triton's JSON parser recurses, so
-- nesting deep enough ends the whole process; it answers nonsense with 500 and takes an empty body for an empty text.
-- One parameter ends it, too. Here a request that can't be right is refused with a 4xx that says why, before Triton
-- sees it. Over gRPC the model is named in the message, and only the one that is served may be.

local MAX_DEPTH = 64

-- A parameter of outputs that has Triton rank classes by itself; asked for a tensor of texts, it divides by zero and
-- the process ends.
local FORBIDDEN = "classification"
local NOT_SERVED = "the parameter 'classification' is not served; ask for the outputs label and score"

local BACKSLASH, QUOTE, COLON, COMMA, LOWER_U = 92, 34, 58, 44, 117
local SPACE, TAB, NEWLINE, RETURN = 32, 9, 10, 13
local ZERO, NINE, MINUS, PLUS, POINT, LOWER_E, UPPER_E = 48, 57, 45, 43, 46, 101, 69
local OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET = 123, 125, 91, 93
local ESCAPES = {}
for _, c in ipairs({ string.byte('"\\/bfnrtu', 1, -1) }) do
  ESCAPES[c] = true
end

-- Where the string that opens at `at` closes; or nil, and where it goes wrong.
local function string_end(text, at)
  local byte, find = string.byte, string.find
  local from = at + 1
  while true do
    local stop = find(text, '[%z\1-\31"\\]', from)
    if stop == nil then
      return nil, #text + 1
    end
    local c = byte(text, stop)
    if c == QUOTE then
      return stop
    end
    local escaped = byte(text, stop + 1)
    if c ~= BACKSLASH or not ESCAPES[escaped] then
      return nil, stop
    end
    if escaped == LOWER_U then
      if not find(text, "^%x%x%x%x", stop + 2) then
        return nil, stop
      end
      stop = stop + 4
    end
    from = stop + 2
  end
end

-- The first place from `at` on that is no white space.
local function after_space(text, at)
  local byte = string.byte
  local c = byte(text, at)
  while c == SPACE or c == NEWLINE or c == RETURN or c == TAB do
    at = at + 1
    c = byte(text, at)
  end
  return at
end

-- Where the digits from `at` on end; `at - 1` if there are none. Bytes rather than patterns: those LuaJIT doesn't compile.
local function digits_end(text, at)
  local byte = string.byte
  local c = byte(text, at)
  while c ~= nil and c >= ZERO and c <= NINE do
    at = at + 1
    c = byte(text, at)
  end
  return at - 1
end

-- Where the number that begins at `at` ends, or nil.
local function number_end(text, at)
  local byte = string.byte
  if byte(text, at) == MINUS then
    at = at + 1
  end
  local stop = byte(text, at) == ZERO and at or digits_end(text, at)
  if stop < at then
    return nil
  end
  if byte(text, stop + 1) == POINT then
    local from = stop + 2
    stop = digits_end(text, from)
    if stop < from then
      return nil
    end
  end
  local e = byte(text, stop + 1)
  if e == LOWER_E or e == UPPER_E then
    local from = stop + 2
    local sign = byte(text, from)
    if sign == MINUS or sign == PLUS then
      from = from + 1
    end
    stop = digits_end(text, from)
    if stop < from then
      return nil
    end
  end
  return stop
end

local function word_end(text, at)
  local word = string.match(text, "^%l+", at)
  return (word == "true" or word == "false" or word == "null") and at + #word - 1 or nil
end

-- Why `text` is not one JSON object (RFC 8259) that nests at most MAX_DEPTH deep and has no FORBIDDEN key, or nothing.
local function json_fault(text)
  local byte, find, sub = string.byte, string.find, string.sub
  local in_object = {} -- for each level, whether it is an object
  local depth, at = 0, 1
  local wanted = "value" -- or "key", "colon", "comma", and after an opening also its closing: "first key", "first value"
  local function unexpected(place)
    if place > #text then
      return "the body is not valid JSON: it ends too early"
    end
    return "the body is not valid JSON: something unexpected at byte " .. place
  end
  while true do
    at = after_space(text, at)
    local c = byte(text, at)
    if wanted == "comma" then
      if c == COMMA then
        wanted = in_object[depth] and "key" or "value"
      elseif c == (in_object[depth] and CLOSE_BRACE or CLOSE_BRACKET) then
        depth = depth - 1
      else
        return unexpected(at)
      end
    elseif wanted == "colon" then
      if c ~= COLON then
        return unexpected(at)
      end
      wanted = "value"
    elseif c == CLOSE_BRACE and wanted == "first key" or c == CLOSE_BRACKET and wanted == "first value" then
      depth = depth - 1
      wanted = "comma"
    elseif c == QUOTE then
      local stop, fault = string_end(text, at)
      if stop == nil then
        return unexpected(fault)
      end
      if wanted == "key" or wanted == "first key" then
        local key = sub(text, at + 1, stop - 1)
        -- No name that Triton knows needs an escape, and one could hide the name that follows.
        if find(key, "\\", 1, true) then
          return "a key has an escape in it at byte " .. at .. "; write it plainly"
        elseif key == FORBIDDEN then
          return NOT_SERVED
        end
        wanted = "colon"
      else
        wanted = "comma"
      end
      at = stop
    elseif wanted == "key" or wanted == "first key" then
      return unexpected(at)
    elseif c == OPEN_BRACE or c == OPEN_BRACKET then
      depth = depth + 1
      if depth > MAX_DEPTH then
        return "the body is nested deeper than " .. MAX_DEPTH .. " levels"
      end
      in_object[depth] = c == OPEN_BRACE
      wanted = in_object[depth] and "first key" or "first value"
    else
      local is_number = c == MINUS or c ~= nil and c >= ZERO and c <= NINE
      local stop = is_number and number_end(text, at) or not is_number and word_end(text, at)
      if not stop then
        return unexpected(at)
      end
      at = stop
      wanted = "comma"
    end
    at = at + 1
    if depth == 0 then
      local rest = after_space(text, at)
      return rest <= #text and unexpected(rest) or nil
    end
  end
end

-- Calls `visit(tag, from, to)` for each field of the protobuf message in `text` from `at` to `last` that has a length;
-- false if the message is broken.
local function each_field(text, at, last, visit)
  local byte = string.byte
  local function varint()
    local value, scale = 0, 1
    for _ = 1, 10 do
      local c = at <= last and byte(text, at) or nil
      if c == nil then
        return nil
      end
      at = at + 1
      value = value + (c % 128) * scale
      if c < 128 then
        return value
      end
      scale = scale * 128
    end
    return nil
  end
  while at <= last do
    local tag = varint()
    -- A parser that drops the bits above 32 would see another tag than this one.
    if tag == nil or tag >= 4294967296 then
      return false
    end
    local kind = tag % 8
    if kind == 0 then
      if varint() == nil then
        return false
      end
    elseif kind == 1 then
      at = at + 8
    elseif kind == 5 then
      at = at + 4
    elseif kind == 2 then
      local length = varint()
      if length == nil or at + length - 1 > last then
        return false
      end
      visit(tag, at, at + length - 1)
      at = at + length
    else
      return false
    end
  end
  return at == last + 1
end

-- Tags of fields with a length: number * 8 + 2.
local FIRST, SECOND, OUTPUT = 10, 18, 50

-- The model that a message names in its first field ("" if in none), and whether an output of it, if it is a
-- ModelInferRequest, has the parameter FORBIDDEN; nil if the message is broken.
local function read_message(text, with_outputs)
  local sub = string.sub
  local model, forbidden, whole = "", false, true
  local function parameter(tag, from, to)
    if tag == FIRST and sub(text, from, to) == FORBIDDEN then
      forbidden = true
    end
  end
  local function output(tag, from, to)
    if tag == SECOND then
      whole = each_field(text, from, to, parameter) and whole
    end
  end
  local function field(tag, from, to)
    if tag == FIRST then
      model = sub(text, from, to)
    elseif tag == OUTPUT and with_outputs then
      whole = each_field(text, from, to, output) and whole
    end
  end
  -- Behind gRPC's own five bytes.
  whole = each_field(text, 6, #text, field) and whole
  if whole then
    return model, forbidden
  end
end

-- The guards return the status and the reason of a refusal, or nothing.

local function guard_grpc(handle)
  local encoding = handle:headers():get("grpc-encoding")
  if encoding ~= nil and encoding ~= "identity" then
    -- A megabyte of gzip can be a gigabyte of text.
    return "415", "grpc-encoding '" .. encoding .. "' is not accepted; send messages uncompressed"
  end
  -- Read before the body: these objects don't outlive the wait for it.
  local served = handle:filterContext():get("model in message")
  local is_inference = string.find(handle:headers():get(":path"), "ModelInfer", 1, true) ~= nil
  if served == nil then
    return
  end
  local body = handle:body(true)
  local text = body:getBytes(0, body:length())
  local compressed, a, b, c, d = string.byte(text, 1, 5)
  -- What follows the first message would be read here and not by Triton.
  if d == nil or a * 16777216 + b * 65536 + c * 256 + d ~= #text - 5 then
    return "400", "one message is expected, of the length that is said before it"
  elseif compressed ~= 0 then
    return "415", "compressed messages are not accepted"
  end
  local model, forbidden = read_message(text, is_inference)
  if model == nil then
    return "400", "the message is not the protobuf message of this method"
  end
  if model ~= served then
    return "421", "unknown model '" .. string.sub(model, 1, 63) .. "'; " .. served .. " is served here"
  end
  if forbidden then
    return "400", NOT_SERVED
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
  local fault = json_fault(text)
  if fault ~= nil then
    return "400", fault
  end
end

function envoy_on_request(handle)
  local guard
  -- What the route is, not what the caller calls the body: application/grpc-web goes to Triton's HTTP port.
  if handle:filterContext():get("grpc") then
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
-- JSON plain text. So does gRPC with a message that is none (13, INTERNAL; 3 is INVALID_ARGUMENT). When the time that a
-- request gave itself (its parameter `timeout`) is over, Triton says that it is unavailable (14; 4 is DEADLINE_EXCEEDED),
-- and so must the model when it finds the deadline passed, as Triton has no better word.
local function is_late(reason)
  return string.find(reason, "Request timeout expired", 1, true) or string.find(reason, "^the deadline passed")
    or string.find(reason, '"the deadline passed', 1, true)
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status, grpc_status = headers:get(":status"), headers:get("grpc-status")
  local message = headers:get("grpc-message") or ""
  if grpc_status == "13" and message == "Unable to parse request" then
    headers:replace("grpc-status", "3")
  elseif grpc_status == "13" and string.find(message, "Stub process", 1, true) then
    headers:replace("grpc-status", "14")
  elseif grpc_status == "14" and is_late(message) then
    headers:replace("grpc-status", "4")
  end
  if tonumber(status) < 400 then
    return
  end
  if headers:get("content-type") == "text/plain" then
    headers:replace("content-type", "application/json")
  end
  -- Envoy's own 503 says when to come back; Triton's doesn't.
  if status ~= "500" and (status ~= "503" or headers:get("retry-after") ~= nil) then
    return
  end
  local body = handle:body(true)
  local text = body:getBytes(0, math.min(body:length(), 4096))
  local function says(words)
    return string.find(text, words, 1, true) ~= nil
  end
  -- The headers object doesn't outlive the wait for the body.
  headers = handle:headers()
  if status == "503" and is_late(text) then
    headers:replace(":status", "504")
  elseif status == "503" or says("Stub process") then
    headers:replace(":status", "503")
    headers:replace("retry-after", "1")
  elseif says("parse") or says("attempt to") then
    headers:replace(":status", "400")
  end
end
