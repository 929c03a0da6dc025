# Stages one module: `cmake -DSOURCE= -DSTAGE= -DLIST= -P stage.cmake` makes everything in STAGE but bin/ equal to the files named
# in LIST (relative to SOURCE); `cmake -DSTAGE= -DBINARY= -P stage.cmake` opens the freshly linked executable to every user.
# Modes are set, not inherited: a module runs as a user of its own, whatever umask the build had.
cmake_minimum_required(VERSION 3.25)

set(file_mode OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
set(program_mode ${file_mode} OWNER_EXECUTE GROUP_EXECUTE WORLD_EXECUTE)

function(open_folders path)
  while(TRUE)
    cmake_path(GET path PARENT_PATH path)
    file(CHMOD ${path} PERMISSIONS ${program_mode})
    if(path STREQUAL STAGE)
      cmake_path(GET path PARENT_PATH path)  # the folder of all modules, which the daemon lists as a user of its own
      file(CHMOD ${path} PERMISSIONS ${program_mode})
      return()
    endif()
  endwhile()
endfunction()

if(BINARY)
  file(CHMOD ${STAGE}/${BINARY} PERMISSIONS ${program_mode})
  open_folders(${STAGE}/${BINARY})
  return()
endif()

file(STRINGS ${LIST} wanted)
foreach(name ${wanted})
  set(target ${STAGE}/${name})
  cmake_path(GET target PARENT_PATH folder)
  file(MAKE_DIRECTORY ${folder})
  file(COPY_FILE ${SOURCE}/${name} ${target} ONLY_IF_DIFFERENT)
  file(CHMOD ${target} PERMISSIONS ${file_mode})
  open_folders(${target})
endforeach()

file(GLOB_RECURSE present LIST_DIRECTORIES true RELATIVE ${STAGE} ${STAGE}/*)
list(SORT present ORDER DESCENDING)  # what is in a folder comes before the folder
foreach(name ${present})
  if(name MATCHES "^bin(/|$)" OR name IN_LIST wanted)
    continue()
  endif()
  if(IS_DIRECTORY ${STAGE}/${name} AND NOT IS_SYMLINK ${STAGE}/${name})
    file(GLOB inside ${STAGE}/${name}/*)
    if(inside)
      continue()
    endif()
  endif()
  file(REMOVE_RECURSE ${STAGE}/${name})
endforeach()
