// A module's end of the data link that breaks the rules of proto/LINK.md as it is told to: for the whole connection by `mode`,
// for one request by its path. What it is not told to break it keeps.
#pragma once

#include <string>

namespace bulkhead::misbehaving {

// Listens on `socket`, and answers each connection in a thread of its own. Before the handshake is answered.
//
// mode         the connection …
// never-reads  says HELLO and takes nothing, ever
// no-hello     reads everything and says nothing, ever
// no-pong      answers everything but PING
// no-credit    gives no credit for bodies
//
// path                          the answer …
// /ok                           is right
// /upload                       is right, and says how many bytes came
// /hold                         never comes
// /late                         comes when the stream has been cancelled
// /crash                        is the end of the process
// /block                        blocks the loop of its connection, for ever
// /who                          is the number of the process
// /garbage /oversized /half /truncated /unknown-type /unknown-stream /ended-stream /request /second-hello /window-overflow
//                               is no frame, or one that may not be sent; /ended-stream then answers in order
// /crlf-value /crlf-name /nul-value /crlf-trailer /head-that-lies /status-99
//                               has a head that no client may see
// /short /long /short-later /long-later /no-head /two-heads /twice /past-credit
//                               has another body than it says, or comes in the wrong order, or more often or faster than it may
void ServeLink(const std::string& socket, const std::string& mode);

}  // namespace bulkhead::misbehaving
