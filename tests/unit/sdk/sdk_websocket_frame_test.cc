// The frames of RFC 6455, without a process: its examples, every kind of violation, every cut, and random conversations.
#include <gtest/gtest.h>

#include <random>

#include "socket_client.h"
#include "websocket_frame.h"
#include "websocket_handshake.h"

namespace bulkhead::sdk::websocket {
namespace {

using sdk_test::ClientClose;
using sdk_test::ClientFrame;
using Kind = Event::Kind;

constexpr size_t kLimit = 1 << 20;

std::string Words(const Event& event) {
  switch (event.kind) {
    case Kind::kNone: return "none";
    case Kind::kText: return "text " + event.payload;
    case Kind::kBinary: return "binary " + event.payload;
    case Kind::kPing: return "ping " + event.payload;
    case Kind::kPong: return "pong " + event.payload;
    case Kind::kClose: return "close " + std::to_string(event.code) + " " + event.payload;
    case Kind::kViolation: return "violation " + std::to_string(event.code);
  }
  return "?";
}

// All events of `bytes`, which come in pieces of `step`.
std::vector<std::string> Read(std::string_view bytes, size_t step = SIZE_MAX, size_t limit = kLimit) {
  Decoder decoder(limit);
  std::vector<std::string> out;
  while (!bytes.empty()) {
    std::string_view piece = bytes.substr(0, step);
    bytes.remove_prefix(piece.size());
    for (;;) {
      Event event = decoder.Next(piece);
      if (event.kind == Kind::kNone) break;
      out.push_back(Words(event));
      if (event.kind == Kind::kViolation) return out;
    }
    EXPECT_TRUE(piece.empty());
  }
  return out;
}

using Events = std::vector<std::string>;

std::string Hex(std::string_view digits) {
  std::string out;
  for (size_t i = 0; i + 1 < digits.size(); i += 2) {
    if (digits[i] == ' ') ++i;
    out += char(std::stoi(std::string(digits.substr(i, 2)), nullptr, 16));
  }
  return out;
}

TEST(Frames, AreTheExamplesOfSection5_7) {
  EXPECT_EQ(Read(Hex("81 85 37fa213d 7f9f4d5158")), Events{"text Hello"});
  EXPECT_EQ(Read(Hex("8a 85 37fa213d 7f9f4d5158")), Events{"pong Hello"});
  EXPECT_EQ(Read(Hex("01 83 37fa213d 7f9f4d") + Hex("80 82 37fa213d 5b95")), Events{"text Hello"});
  char header[kMaxFrameHeader];
  auto sent = [&](Opcode opcode, std::string payload) {
    return std::string(header, PutFrameHeader(header, opcode, payload.size())) + payload;
  };
  EXPECT_EQ(sent(Opcode::kText, "Hello"), Hex("81 05 48656c6c6f"));
  EXPECT_EQ(sent(Opcode::kPing, "Hello"), Hex("89 05 48656c6c6f"));
  EXPECT_EQ(sent(Opcode::kBinary, std::string(256, 'b')).substr(0, 4), Hex("82 7e 0100"));
  EXPECT_EQ(sent(Opcode::kBinary, std::string(65'536, 'b')).substr(0, 10), Hex("82 7f 0000000000010000"));
}

TEST(Frames, TakeTheShortestLength) {
  char header[kMaxFrameHeader];
  for (auto [size, bytes] :
       std::vector<std::pair<uint64_t, size_t>>{{0, 2}, {125, 2}, {126, 4}, {65'535, 4}, {65'536, 10}, {1ull << 40, 10}}) {
    EXPECT_EQ(PutFrameHeader(header, Opcode::kText, size), bytes) << size;
  }
  for (size_t size : {0, 1, 125, 126, 127, 65'535, 65'536, 65'537}) {
    std::string payload(size, 'x');
    EXPECT_EQ(Read(ClientFrame(2, payload)), Events{"binary " + payload}) << size;
  }
}

TEST(Frames, AcceptHashIsTheExampleOfSection1_3) {
  EXPECT_EQ(AcceptOf("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

TEST(Frames, ControlFramesComeBetweenFragments) {
  std::string bytes = ClientFrame(1, "one ", false) + ClientFrame(9, "are you there") + ClientFrame(0, "two ", false) +
                      ClientFrame(10, "") + ClientFrame(0, "", false) + ClientFrame(0, "three") + ClientFrame(2, "") +
                      ClientClose(1000, "bye");
  Events expected = {"ping are you there", "pong ", "text one two three", "binary ", "close 1000 bye"};
  for (size_t step = 1; step <= bytes.size(); ++step) EXPECT_EQ(Read(bytes, step), expected) << step;
}

TEST(Frames, NothingIsReadBehindAClose) {
  EXPECT_EQ(Read(ClientClose(1001) + ClientFrame(1, "late")), Events{"close 1001 "});  // 5.5.1
  EXPECT_EQ(Read(ClientFrame(8, "") + "garbage"), Events{"close 1005 "});
}

struct Violation {
  const char* why;
  const char* section;
  std::string bytes;
  int code;
};

std::vector<Violation> Violations() {
  auto first = [](int byte, std::string payload = {}) {
    std::string frame = ClientFrame(1, payload);
    frame[0] = char(byte);
    return frame;
  };
  std::string begun = ClientFrame(1, "begun", false);
  std::vector<Violation> out = {
      {"reserved bit 1", "5.2", first(0xc1), 1002},
      {"reserved bit 2", "5.2", first(0xa1), 1002},
      {"reserved bit 3", "5.2", first(0x91), 1002},
      {"all reserved bits on a control frame", "5.2", first(0xf9), 1002},
      {"a frame without a mask", "5.1", Hex("81 05 48656c6c6f"), 1002},
      {"an empty frame without a mask", "5.1", Hex("82 00"), 1002},
      {"a ping without a mask", "5.1", Hex("89 00"), 1002},
      {"a continuation of nothing", "5.4", ClientFrame(0, "x"), 1002},
      {"a continuation of nothing, unfinished", "5.4", ClientFrame(0, "x", false), 1002},
      {"a continuation behind a whole message", "5.4", ClientFrame(1, "whole") + ClientFrame(0, "x"), 1002},
      {"text within a message", "5.4", begun + ClientFrame(1, "x"), 1002},
      {"binary within a message", "5.4", begun + ClientFrame(2, "x"), 1002},
      {"a ping in fragments", "5.4", ClientFrame(9, "x", false), 1002},
      {"a pong in fragments", "5.4", ClientFrame(10, "", false), 1002},
      {"a close in fragments", "5.4", ClientFrame(8, "", false), 1002},
      {"a ping of 126 bytes", "5.5", ClientFrame(9, std::string(126, 'p')), 1002},
      {"a pong of 65,536 bytes", "5.5", ClientFrame(10, std::string(65'536, 'p')), 1002},
      {"a close of 126 bytes", "5.5", ClientFrame(8, Hex("03e8") + std::string(124, 'r')), 1002},
      {"a close of one byte", "5.5.1", ClientFrame(8, "x"), 1002},
      {"a close reason that is not UTF-8", "5.5.1", ClientClose(1000, "\xff"), 1007},
      {"a close reason cut within a character", "5.5.1", ClientClose(1000, "\xe2\x82"), 1007},
      {"125 bytes as a 16-bit length", "5.2", Hex("82 fe 007d 00000000"), 1002},
      {"0 bytes as a 16-bit length", "5.2", Hex("82 fe 0000 00000000"), 1002},
      {"65,535 bytes as a 64-bit length", "5.2", Hex("82 ff 000000000000ffff 00000000"), 1002},
      {"a length with its highest bit", "5.2", Hex("82 ff 8000000000000000 00000000"), 1002},
      {"a frame beyond the limit", "10.4", Hex("82 ff 0000000000100001 00000000"), 1009},
      {"a frame of 2^62 bytes", "10.4", Hex("82 ff 4000000000000000 00000000"), 1009},
      {"fragments beyond the limit together", "10.4", ClientFrame(2, std::string(kLimit, 'x'), false) + ClientFrame(0, "x"),
       1009},
      {"text of 0xff", "8.1", ClientFrame(1, "\xff"), 1007},
      {"text that ends within a character", "8.1", ClientFrame(1, "\xe2\x82"), 1007},
      {"a fragment that no character can follow", "8.1", ClientFrame(1, "\xed\xa0", false), 1007},
      {"a character broken by the next fragment", "8.1", ClientFrame(1, "\xe2", false) + ClientFrame(0, "x", false), 1007},
      {"fragments that end within a character", "8.1", ClientFrame(1, "\xe2", false) + ClientFrame(0, "\x82"), 1007},
  };
  for (int opcode : {3, 4, 5, 6, 7, 11, 12, 13, 14, 15}) {
    out.push_back({"a reserved opcode", "5.2", first(0x80 | opcode), 1002});
  }
  for (int code : {0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65'535}) {
    out.push_back({"a close code that must not be sent", "7.4", ClientClose(uint16_t(code)), 1002});
  }
  return out;
}

TEST(Frames, EveryViolationHasItsCode) {
  for (const Violation& one : Violations()) {
    SCOPED_TRACE(std::string(one.why) + ", section " + one.section);
    for (size_t step : {size_t(1), size_t(2), size_t(7), SIZE_MAX}) {
      Events events = Read(one.bytes, step);
      ASSERT_FALSE(events.empty());
      EXPECT_EQ(events.back(), "violation " + std::to_string(one.code));
    }
  }
}

TEST(Frames, AViolationIsSeenAsSoonAsItsBytesAreThere) {
  EXPECT_EQ(Read(Hex("c1 80")), Events{"violation 1002"}) << "before the mask";
  EXPECT_EQ(Read(Hex("82 ff 0000000000100001 00000000")), Events{"violation 1009"}) << "before the payload";
  std::string text = ClientFrame(1, "\xff" + std::string(1'000, 'x'));
  EXPECT_EQ(Read(text.substr(0, 9)), Events{"violation 1007"}) << "before the rest of the message";
}

TEST(Frames, AViolationStaysOne) {
  Decoder decoder(kLimit);
  std::string bytes = Hex("8380") + ClientFrame(1, "fine");
  std::string_view in = bytes;
  EXPECT_EQ(Words(decoder.Next(in)), "violation 1002");
  EXPECT_EQ(Words(decoder.Next(in)), "violation 1002");
  EXPECT_TRUE(in.empty());
  EXPECT_EQ(decoder.kept(), 0u);
}

TEST(Frames, CloseCodesThatMayBeSentAreTaken) {
  for (int code : {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999}) {
    EXPECT_EQ(Read(ClientClose(uint16_t(code), "why")), Events{"close " + std::to_string(code) + " why"});
    EXPECT_EQ(CloseFrame(uint16_t(code), "why").substr(4), "why");
  }
  EXPECT_EQ(Read(ClientClose(1000, std::string(123, 'r'))), Events{"close 1000 " + std::string(123, 'r')});
}

TEST(Frames, ACloseReasonIsCutBetweenCharacters) {
  std::string reason = std::string(122, 'r') + "\xe2\x82\xac";
  EXPECT_EQ(CloseFrame(1011, reason), Hex("88 7c 03f3") + std::string(122, 'r'));
  EXPECT_EQ(CloseFrame(1005, "unsaid"), Hex("88 00"));
}

TEST(Frames, TheLimitItselfIsTaken) {
  EXPECT_EQ(Read(ClientFrame(1, "12345"), 1, 5), Events{"text 12345"});
  EXPECT_EQ(Read(ClientFrame(1, "123456"), 1, 5), Events{"violation 1009"});
  EXPECT_EQ(Read(ClientFrame(1, "123", false) + ClientFrame(9, "control frames are apart") + ClientFrame(0, "45"), 1, 5).back(),
            "text 12345");
}

// ---- UTF-8, against a decoder that is written differently ----

bool ReferenceUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    uint8_t lead = uint8_t(text[i]);
    size_t size = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
    if (size == 0 || i + size > text.size()) return false;
    uint32_t point = size == 1 ? lead : lead & (0x7f >> size);
    for (size_t k = 1; k < size; ++k) {
      if ((uint8_t(text[i + k]) & 0xc0) != 0x80) return false;
      point = point << 6 | (uint8_t(text[i + k]) & 0x3f);
    }
    const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (point < least[size] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return false;
    i += size;
  }
  return true;
}

TEST(Utf8, AgreesWithTheReferenceOnEverySequenceOfThreeBytes) {
  char bytes[3];
  for (int size = 1; size <= 3; ++size) {
    for (uint32_t value = 0; value < 1u << (8 * size); ++value) {
      for (int i = 0; i < size; ++i) bytes[i] = char(value >> (8 * i));
      std::string_view text(bytes, size_t(size));
      ASSERT_EQ(IsUtf8(text), ReferenceUtf8(text)) << std::hex << value;
    }
  }
}

TEST(Utf8, AgreesWithTheReferenceOnFourBytes) {
  char bytes[4];
  for (int lead = 0xec; lead <= 0xff; ++lead) {
    for (int second = 0; second < 256; ++second) {
      for (int third : {0x00, 0x7f, 0x80, 0xa5, 0xbf, 0xc0, 0xff}) {
        for (int fourth : {0x00, 0x7f, 0x80, 0xa5, 0xbf, 0xc0, 0xff}) {
          bytes[0] = char(lead), bytes[1] = char(second), bytes[2] = char(third), bytes[3] = char(fourth);
          std::string_view text(bytes, 4);
          ASSERT_EQ(IsUtf8(text), ReferenceUtf8(text)) << lead << " " << second << " " << third << " " << fourth;
        }
      }
    }
  }
}

TEST(Utf8, SeesABadByteAnywhereInLongText) {
  for (size_t at = 0; at < 40; ++at) {
    std::string text(40, 'a');
    text[at] = '\xff';
    EXPECT_FALSE(IsUtf8(text)) << at;
    Utf8Reader reader;
    EXPECT_TRUE(reader.Take(std::string_view(text).substr(0, at)));
    EXPECT_FALSE(reader.Take(std::string_view(text).substr(at, 1)));
  }
}

// ---- random conversations ----

class Conversation {
 public:
  explicit Conversation(uint32_t seed) : random_(seed) {}

  // Appends messages in random fragments with control frames between them; `expected` is what they mean.
  std::string Bytes(Events& expected) {
    std::string out;
    for (int i = 0; i < 20; ++i) {
      bool binary = Chance(2);
      std::string message = binary ? Noise(Size()) : Text(Size());
      std::string_view rest = message;
      bool first = true;
      do {
        size_t n = Chance(3) ? rest.size() : Below(rest.size() + 1);
        bool last = n == rest.size() && !Chance(4);
        out += ClientFrame(first ? (binary ? 2 : 1) : 0, rest.substr(0, n), last, uint32_t(random_()));
        rest.remove_prefix(n);
        first = false;
        if (last) break;
        if (Chance(3)) {
          std::string payload = Noise(Below(126));
          bool ping = Chance(2);
          out += ClientFrame(ping ? 9 : 10, payload, true, uint32_t(random_()));
          expected.push_back((ping ? "ping " : "pong ") + payload);
        }
      } while (true);
      expected.push_back((binary ? "binary " : "text ") + message);
    }
    return out;
  }
  size_t Below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }

 private:
  bool Chance(int one_in) { return random_() % uint32_t(one_in) == 0; }
  size_t Size() { return Chance(5) ? 0 : Chance(5) ? 60'000 + Below(10'000) : Below(300); }
  std::string Noise(size_t size) {
    std::string out(size, '\0');
    for (char& c : out) c = char(random_());
    return out;
  }
  std::string Text(size_t characters) {
    const char* const samples[] = {
        "a", "z", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x99\x82", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf", "8 letters"};
    std::string out;
    for (size_t i = 0; i < characters; ++i) out += samples[Below(8)];
    return out;
  }
  std::mt19937 random_;
};

TEST(Frames, RandomConversationsMeanTheSameHoweverTheyAreCut) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Conversation conversation(seed);
    Events expected;
    std::string bytes = conversation.Bytes(expected);
    ASSERT_EQ(Read(bytes), expected);
    Decoder decoder(kLimit);
    Events events;
    for (std::string_view rest = bytes; !rest.empty();) {
      std::string_view piece = rest.substr(0, 1 + conversation.Below(seed % 3 == 0 ? 5 : 5'000));
      rest.remove_prefix(piece.size());
      for (Event event = decoder.Next(piece); event.kind != Kind::kNone; event = decoder.Next(piece))
        events.push_back(Words(event));
    }
    ASSERT_EQ(events, expected);
    EXPECT_FALSE(decoder.in_message());
    EXPECT_EQ(decoder.kept(), 0u);
  }
}

TEST(Frames, RandomBytesNeverGoBeyondTheLimits) {
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes(random() % 64, '\0');
    for (char& c : bytes) c = char(random());
    // Half of them begin like a frame, to come further than the first check.
    if (bytes.size() > 2 && round % 2) bytes[0] = char(0x80 | random() % 3), bytes[1] = char(0x80 | (uint8_t(bytes[1]) % 64));
    Decoder decoder(16);
    std::string_view in = bytes;
    for (Event event = decoder.Next(in); event.kind != Kind::kNone && event.kind != Kind::kViolation; event = decoder.Next(in)) {
      ASSERT_LE(event.payload.size(), 125u);
      if (event.kind == Kind::kText) {
        ASSERT_TRUE(ReferenceUtf8(event.payload));
      }
    }
    ASSERT_LE(decoder.kept(), 16u);
  }
}

// ---- the handshake ----

int Refusal(Headers headers, bool upgrade = true, std::string method = "GET") {
  auto refusal = RefuseOther(Request(std::move(method), "/ws", std::move(headers)), upgrade);
  if (refusal) {
    EXPECT_EQ(refusal->headers.back(), (std::pair<std::string, std::string>("sec-websocket-version", "13")));
  }
  return refusal ? refusal->status : 0;
}

TEST(Handshake, WantsVersion13AndAnUpgradeToWebSocket) {
  const std::pair<std::string, std::string> asks = {"x-bulkhead-upgrade", "websocket"}, version = {"sec-websocket-version", "13"};
  EXPECT_EQ(Refusal({asks, version}), 0);
  EXPECT_EQ(Refusal({asks, version}, false), 426) << "no tunnel was asked for";
  EXPECT_EQ(Refusal({asks, version}, true, "POST"), 426);
  EXPECT_EQ(Refusal({version}), 426);
  EXPECT_EQ(Refusal({{"x-bulkhead-upgrade", "h2c"}, version}), 426);
  EXPECT_EQ(Refusal({asks}), 426);
  for (const char* other : {"8", "12", "14", "13, 8", "", "013"})
    EXPECT_EQ(Refusal({asks, {"sec-websocket-version", other}}), 426) << other;
  EXPECT_EQ(Refusal({asks, version, version}), 426);
}

TEST(Handshake, WantsAKeyOf16Bytes) {
  auto read = [](Headers headers) { return ReadHandshake(Request("GET", "/ws", std::move(headers)), {}).accept; };
  EXPECT_EQ(read({{"sec-websocket-key", " dGhlIHNhbXBsZSBub25jZQ== "}}), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  for (const char* bad :
       {"", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==x",
        "dGhlIHNhbXBsZSBub25j*Q==", "dGhlIHNhbXBsZSBub25jZTEy", "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="}) {
    EXPECT_THROW(read({{"sec-websocket-key", bad}}), HttpError) << bad;
  }
  EXPECT_THROW(read({}), HttpError);
}

TEST(Handshake, TakesTheModulesBestSubprotocolThatTheClientOffers) {
  auto agreed = [](Headers headers, std::vector<std::string> ours) {
    headers.emplace_back("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    return ReadHandshake(Request("GET", "/ws", std::move(headers)), ours).protocol;
  };
  EXPECT_EQ(agreed({{"sec-websocket-protocol", "v1, v2"}}, {"v2", "v1"}), "v2");
  EXPECT_EQ(agreed({{"sec-websocket-protocol", "v1"}, {"sec-websocket-protocol", "v2"}}, {"v2"}), "v2")
      << "two fields are one list";
  EXPECT_EQ(agreed({{"sec-websocket-protocol", "V2"}}, {"v2"}), "") << "names are compared as they are";
  EXPECT_EQ(agreed({{"sec-websocket-protocol", "v1"}}, {}), "");
  EXPECT_EQ(agreed({}, {"v1"}), "");
}

}  // namespace
}  // namespace bulkhead::sdk::websocket
